#include "supervisor/devices.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/available_memory.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "supervisor/nvml.h"

namespace switchyard::supervisor {
namespace {

// Set by the build where switchyard-worker is built with CUDA kernels.
#ifdef SWITCHYARD_HAVE_CUDA
constexpr bool kWorkersDriveGpus = true;
#else
constexpr bool kWorkersDriveGpus = false;
#endif

constexpr uint64_t kGpuReserve = uint64_t{512} << 20;
constexpr uint64_t kLeastSize = uint64_t{1} << 20;  // below that a unit was forgotten
constexpr int kLeastCapability = 80;                // bf16 on tensor cores

std::vector<Gpu> FindGpus() {
  if (!kWorkersDriveGpus) return {};
  auto nvml = Nvml::Open();
  if (!nvml.ok()) return {};
  auto gpus = (*nvml)->Gpus();
  return gpus.ok() ? *std::move(gpus) : std::vector<Gpu>();
}

// Why our kernels cannot run on it, or empty.
std::string Unfit(const Gpu& gpu) {
  if (gpu.capability == 0 || gpu.capability >= kLeastCapability) return "";
  return absl::StrCat(gpu.name, " (", gpu.uuid, ") has compute capability ", gpu.capability / 10,
                      ".", gpu.capability % 10, ", and 8.0 is the least that is supported");
}

Device FromGpu(const Gpu& gpu, std::optional<uint64_t> reserve) {
  return {gpu.uuid, gpu.total_bytes - gpu.driver_bytes, reserve.value_or(kGpuReserve)};
}

absl::StatusOr<Device> ParseDevice(const std::string& text, const std::vector<Gpu>& gpus,
                                   uint64_t cpu_bytes, std::optional<uint64_t> reserve) {
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  Device device;
  if (name == "cpu") {
    device = {"cpu", cpu_bytes, reserve.value_or(0)};
  } else {
    auto gpu = std::find_if(gpus.begin(), gpus.end(), [&](const Gpu& g) {
      return name == g.uuid || name == g.name || name == absl::StrCat(&g - gpus.data());
    });
    if (gpu == gpus.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "there is no device \"", name, "\": ",
          kWorkersDriveGpus ? absl::StrCat(gpus.size(), " GPUs were found, and cpu")
                            : std::string("this build has no CUDA kernels, only cpu")));
    }
    if (std::string why = Unfit(*gpu); !why.empty()) return absl::InvalidArgumentError(why);
    device = FromGpu(*gpu, reserve);
  }
  if (equals == std::string::npos) return device;
  ASSIGN_OR_RETURN(const uint64_t size, ParseBytes(text.substr(equals + 1)));
  if (size < kLeastSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device ", text, ": ", size, " bytes are less than ", HumanBytes(kLeastSize),
                     "; a size has a unit, as --device ", name, "=64GiB"));
  }
  if (name != "cpu" && size > device.capacity_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device ", text, ": the GPU has ", HumanBytes(device.capacity_bytes)));
  }
  device.capacity_bytes = size;
  return device;
}

}  // namespace

absl::StatusOr<Budget> FindBudget(const std::vector<std::string>& devices,
                                  const std::string& host_memory,
                                  std::optional<uint64_t> reserve_bytes) {
  Budget budget;
  ASSIGN_OR_RETURN(const uint64_t available, AvailableMemory());
  budget.host_bytes = available / 4;
  if (!host_memory.empty()) {
    ASSIGN_OR_RETURN(budget.host_bytes, ParseBytes(host_memory));
  }
  const uint64_t cpu_bytes = (available - std::min(available, budget.host_bytes)) / 2;
  const std::vector<Gpu> gpus = FindGpus();
  for (const std::string& text : devices) {
    ASSIGN_OR_RETURN(Device device, ParseDevice(text, gpus, cpu_bytes, reserve_bytes));
    for (const Device& other : budget.devices) {
      if (other.name == device.name) {
        return absl::InvalidArgumentError(absl::StrCat("device ", device.name, " is named twice"));
      }
    }
    budget.devices.push_back(std::move(device));
  }
  if (devices.empty()) {
    for (const Gpu& gpu : gpus) {
      if (std::string why = Unfit(gpu); !why.empty()) {
        LogWarning(why, "; it is left alone");
      } else {
        budget.devices.push_back(FromGpu(gpu, reserve_bytes));
      }
    }
  }
  if (budget.devices.empty()) {
    budget.devices.push_back({"cpu", cpu_bytes, reserve_bytes.value_or(0)});
  }
  return budget;
}

}  // namespace switchyard::supervisor
