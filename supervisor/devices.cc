#include "supervisor/devices.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/available_memory.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"

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

using FoundGpus = absl::StatusOr<std::vector<Gpu>>;

// Why our kernels cannot run on it, or empty.
std::string Unfit(const Gpu& gpu, size_t index) {
  if (!gpu.failure.ok()) {
    return absl::StrCat("GPU ", index, gpu.uuid.empty() ? "" : absl::StrCat(" (", gpu.uuid, ")"),
                        " does not answer: ", gpu.failure.message());
  }
  if (gpu.capability == 0 || gpu.capability >= kLeastCapability) return "";
  return absl::StrCat(gpu.name, " (", gpu.uuid, ") has compute capability ", gpu.capability / 10,
                      ".", gpu.capability % 10, ", and 8.0 is the least that is supported");
}

// What there is instead of what was named.
std::string OnlyThese(const FoundGpus& gpus) {
  if (!gpus.ok()) return absl::StrCat(gpus.status().message(), ", only cpu");
  std::string text = absl::StrCat(gpus->size(), " GPUs were found, and cpu");
  // What was named may be one of them: who does not answer may not even say its name.
  for (size_t i = 0; i < gpus->size(); ++i) {
    if (!(*gpus)[i].failure.ok()) absl::StrAppend(&text, "; ", Unfit((*gpus)[i], i));
  }
  return text;
}

Device FromGpu(const Gpu& gpu, std::optional<uint64_t> reserve) {
  return {gpu.uuid, gpu.total_bytes - gpu.driver_bytes, reserve.value_or(kGpuReserve)};
}

absl::StatusOr<Device> NamedGpu(const std::string& name, const FoundGpus& gpus,
                                std::optional<uint64_t> reserve) {
  for (size_t i = 0; gpus.ok() && i < gpus->size(); ++i) {
    const Gpu& gpu = (*gpus)[i];
    if (name != gpu.uuid && name != gpu.name && name != absl::StrCat(i)) continue;
    if (std::string why = Unfit(gpu, i); !why.empty()) return absl::InvalidArgumentError(why);
    return FromGpu(gpu, reserve);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no device \"", name, "\": ", OnlyThese(gpus)));
}

absl::StatusOr<Device> ParseDevice(const std::string& text, const FoundGpus& gpus,
                                   uint64_t cpu_bytes, std::optional<uint64_t> reserve) {
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  Device device;
  if (name == "cpu") {
    device = {"cpu", cpu_bytes, reserve.value_or(0)};
  } else {
    ASSIGN_OR_RETURN(device, NamedGpu(name, gpus, reserve));
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

// All that can be used. A machine that has none says nothing; one that should have does.
std::vector<Device> EveryGpu(const FoundGpus& gpus, std::optional<uint64_t> reserve) {
  std::vector<Device> devices;
  if (!gpus.ok()) {
    if (absl::IsUnavailable(gpus.status())) {
      LogWarning("no GPU is used: ", gpus.status().message());
    }
    return devices;
  }
  for (size_t i = 0; i < gpus->size(); ++i) {
    const Gpu& gpu = (*gpus)[i];
    if (std::string why = Unfit(gpu, i); !why.empty()) {
      LogWarning(why, "; it is left alone");
    } else {
      devices.push_back(FromGpu(gpu, reserve));
    }
  }
  return devices;
}

}  // namespace

absl::StatusOr<std::vector<Gpu>> FindGpus() {
  if (!kWorkersDriveGpus) return absl::FailedPreconditionError("this build has no CUDA kernels");
  ASSIGN_OR_RETURN(const std::unique_ptr<Nvml> nvml, Nvml::Open());
  return nvml->Gpus();
}

absl::StatusOr<Budget> FindBudget(const std::vector<std::string>& devices,
                                  const std::string& host_memory,
                                  std::optional<uint64_t> reserve_bytes,
                                  const absl::StatusOr<std::vector<Gpu>>& gpus) {
  Budget budget;
  ASSIGN_OR_RETURN(const uint64_t available, AvailableMemory());
  budget.host_bytes = available / 4;
  if (!host_memory.empty()) {
    ASSIGN_OR_RETURN(budget.host_bytes, ParseBytes(host_memory));
  }
  const uint64_t cpu_bytes = (available - std::min(available, budget.host_bytes)) / 2;
  for (const std::string& text : devices) {
    ASSIGN_OR_RETURN(Device device, ParseDevice(text, gpus, cpu_bytes, reserve_bytes));
    for (const Device& other : budget.devices) {
      if (other.name == device.name) {
        return absl::InvalidArgumentError(absl::StrCat("device ", device.name, " is named twice"));
      }
    }
    budget.devices.push_back(std::move(device));
  }
  if (devices.empty()) budget.devices = EveryGpu(gpus, reserve_bytes);
  if (budget.devices.empty()) {
    budget.devices.push_back({"cpu", cpu_bytes, reserve_bytes.value_or(0)});
  }
  return budget;
}

}  // namespace switchyard::supervisor
