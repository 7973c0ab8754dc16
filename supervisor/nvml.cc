#include "supervisor/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::supervisor {
namespace {

// NVML's binary interface, as much of it as is used here.
using NvmlDevice = void*;
using NvmlResult = int;  // 0: success
struct MemoryV2 {
  unsigned int version;
  unsigned long long total, reserved, free, used;
};
constexpr unsigned int kMemoryV2 = sizeof(MemoryV2) | (2u << 24);
struct Utilization {
  unsigned int gpu, memory;  // percent
};
struct ProcessV2 {
  unsigned int pid;
  unsigned long long used;
  unsigned int gpu_instance, compute_instance;
};
constexpr NvmlResult kInsufficientSize = 7;
constexpr unsigned long long kNotAvailable = ~0ull;
constexpr int kSensorOfGpu = 0;
constexpr unsigned int kMostProcesses = 1 << 16;

// Why `library` could not be loaded. Not there at all, it is no fault: most machines have no GPU.
absl::Status WhyNotLoaded(const char* library) {
  const char* said = ::dlerror();
  const std::string why = said == nullptr ? "" : said;
  if (why.rfind(absl::StrCat(library, ": "), 0) == 0 &&
      why.find("No such file or directory") != std::string::npos) {
    return absl::NotFoundError("there is no NVIDIA driver here");
  }
  return absl::UnavailableError(absl::StrCat("the driver's library cannot be loaded: ", why));
}

}  // namespace

struct Nvml::Library {
  void* handle = nullptr;
  NvmlResult (*init)() = nullptr;
  NvmlResult (*shutdown)() = nullptr;
  NvmlResult (*count)(unsigned int*) = nullptr;
  NvmlResult (*by_index)(unsigned int, NvmlDevice*) = nullptr;
  NvmlResult (*uuid)(NvmlDevice, char*, unsigned int) = nullptr;
  NvmlResult (*name)(NvmlDevice, char*, unsigned int) = nullptr;
  NvmlResult (*memory)(NvmlDevice, MemoryV2*) = nullptr;
  // These may be missing.
  const char* (*error_string)(NvmlResult) = nullptr;
  NvmlResult (*capability)(NvmlDevice, int*, int*) = nullptr;
  NvmlResult (*utilization)(NvmlDevice, Utilization*) = nullptr;
  NvmlResult (*power)(NvmlDevice, unsigned int*) = nullptr;  // milliwatts
  NvmlResult (*temperature)(NvmlDevice, int, unsigned int*) = nullptr;
  NvmlResult (*energy)(NvmlDevice, unsigned long long*) = nullptr;  // millijoules
  NvmlResult (*processes)(NvmlDevice, unsigned int*, ProcessV2*) = nullptr;

  template <typename Function>
  bool Load(Function* function, const char* symbol) {
    *function = reinterpret_cast<Function>(::dlsym(handle, symbol));
    return *function != nullptr;
  }
  bool LoadAll() {
    Load(&error_string, "nvmlErrorString");
    Load(&capability, "nvmlDeviceGetCudaComputeCapability");
    Load(&utilization, "nvmlDeviceGetUtilizationRates");
    Load(&power, "nvmlDeviceGetPowerUsage");
    Load(&temperature, "nvmlDeviceGetTemperature");
    Load(&energy, "nvmlDeviceGetTotalEnergyConsumption");
    // The first drivers of series 535 write longer entries in _v3. _v2 never changed, and is older.
    if (!Load(&processes, "nvmlDeviceGetComputeRunningProcesses_v2")) {
      Load(&processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    }
    return Load(&init, "nvmlInit_v2") && Load(&shutdown, "nvmlShutdown") &&
           Load(&count, "nvmlDeviceGetCount_v2") &&
           Load(&by_index, "nvmlDeviceGetHandleByIndex_v2") && Load(&uuid, "nvmlDeviceGetUUID") &&
           Load(&name, "nvmlDeviceGetName") && Load(&memory, "nvmlDeviceGetMemoryInfo_v2");
  }

  absl::Status Check(NvmlResult result, const char* what) const;
  DeviceSample Sample(NvmlDevice device) const;
  std::optional<std::vector<DeviceSample::Process>> Processes(NvmlDevice device) const;
};

absl::Status Nvml::Library::Check(NvmlResult result, const char* what) const {
  if (result == 0) return absl::OkStatus();
  const char* meaning = error_string == nullptr ? nullptr : error_string(result);
  return absl::UnavailableError(absl::StrCat(
      what, " failed: ", meaning == nullptr ? "no text" : meaning, " (NVML error ", result, ")"));
}

DeviceSample Nvml::Library::Sample(NvmlDevice device) const {
  DeviceSample sample;
  Utilization rates;
  unsigned int value = 0;
  unsigned long long counter = 0;
  if (utilization != nullptr && utilization(device, &rates) == 0) {
    sample.utilization_percent = rates.gpu;
  }
  if (power != nullptr && power(device, &value) == 0) sample.milliwatts = value;
  if (temperature != nullptr && temperature(device, kSensorOfGpu, &value) == 0) {
    sample.celsius = value;
  }
  if (energy != nullptr && energy(device, &counter) == 0) sample.millijoules = counter;
  sample.processes = Processes(device);
  return sample;
}

std::optional<std::vector<DeviceSample::Process>> Nvml::Library::Processes(
    NvmlDevice device) const {
  if (processes == nullptr) return std::nullopt;
  NvmlResult result = kInsufficientSize;
  std::vector<ProcessV2> list;
  unsigned int count = 32;
  // More may have started when it is asked again: so twice what it wanted, and not for ever.
  for (int tries = 0; tries < 4 && result == kInsufficientSize; ++tries) {
    list.resize(std::min(count, kMostProcesses));
    count = static_cast<unsigned int>(list.size());
    result = processes(device, &count, list.data());
    if (result == kInsufficientSize) count = 2 * std::min(count, kMostProcesses);
  }
  if (result != 0) return std::nullopt;
  list.resize(std::min<size_t>(count, list.size()));
  std::vector<DeviceSample::Process> found;
  for (const ProcessV2& each : list) {
    DeviceSample::Process& process = found.emplace_back();
    process.pid = static_cast<int32_t>(each.pid);
    if (each.used != kNotAvailable) process.bytes = each.used;
  }
  return found;
}

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const char* library_name) {
  auto library = std::make_unique<Library>();
  library->handle = ::dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
  if (library->handle == nullptr) return WhyNotLoaded(library_name);
  // The handle is never closed: the library keeps threads and state of its own.
  if (!library->LoadAll()) return absl::UnavailableError(absl::StrCat(library_name, " is too old"));
  RETURN_IF_ERROR(library->Check(library->init(), "nvmlInit"));
  return std::unique_ptr<Nvml>(new Nvml(std::move(library)));
}

Nvml::Nvml(std::unique_ptr<Library> library) : library_(std::move(library)) {}
Nvml::~Nvml() { library_->shutdown(); }

absl::StatusOr<std::vector<Gpu>> Nvml::Gpus() const {
  unsigned int count = 0;
  RETURN_IF_ERROR(library_->Check(library_->count(&count), "counting GPUs"));
  std::vector<Gpu> gpus;
  for (unsigned int i = 0; i < count; ++i) gpus.push_back(AskGpu(i));
  return gpus;
}

Gpu Nvml::AskGpu(unsigned int index) const {
  Gpu gpu;
  NvmlDevice device = nullptr;
  char uuid[96] = {}, name[96] = {};
  MemoryV2 memory{kMemoryV2, 0, 0, 0, 0};
  const auto answers = [&](NvmlResult result, const char* what) {
    gpu.failure = library_->Check(result, what);
    return gpu.failure.ok();
  };
  if (!answers(library_->by_index(index, &device), "opening it")) return gpu;
  if (!answers(library_->uuid(device, uuid, sizeof(uuid)), "reading its UUID")) return gpu;
  gpu.uuid = uuid;
  if (!answers(library_->name(device, name, sizeof(name)), "reading its name")) return gpu;
  gpu.name = name;
  if (!answers(library_->memory(device, &memory), "reading its memory")) return gpu;
  gpu.total_bytes = memory.total;
  gpu.driver_bytes = memory.reserved;
  gpu.used_bytes = memory.used;  // in this version without what the driver reserves
  int major = 0, minor = 0;
  if (library_->capability != nullptr && library_->capability(device, &major, &minor) == 0) {
    gpu.capability = major * 10 + minor;
  }
  return gpu;
}

std::vector<DeviceSample> Nvml::Samples() const {
  std::vector<DeviceSample> samples;
  unsigned int count = 0;
  if (library_->count(&count) != 0) return samples;
  for (unsigned int i = 0; i < count; ++i) {
    NvmlDevice device = nullptr;
    char uuid[96] = {};
    if (library_->by_index(i, &device) != 0) continue;
    if (library_->uuid(device, uuid, sizeof(uuid)) != 0) continue;
    samples.push_back(library_->Sample(device));
    samples.back().device = uuid;
  }
  return samples;
}

}  // namespace switchyard::supervisor
