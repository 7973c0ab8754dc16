#include "supervisor/nvml.h"

#include <dlfcn.h>

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

absl::Status Check(NvmlResult result, const char* what) {
  if (result == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(what, " failed with NVML error ", result));
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
  NvmlResult (*capability)(NvmlDevice, int*, int*) = nullptr;  // may be missing

  template <typename Function>
  bool Load(Function* function, const char* symbol) {
    *function = reinterpret_cast<Function>(::dlsym(handle, symbol));
    return *function != nullptr;
  }
  bool LoadAll() {
    Load(&capability, "nvmlDeviceGetCudaComputeCapability");
    return Load(&init, "nvmlInit_v2") && Load(&shutdown, "nvmlShutdown") &&
           Load(&count, "nvmlDeviceGetCount_v2") &&
           Load(&by_index, "nvmlDeviceGetHandleByIndex_v2") && Load(&uuid, "nvmlDeviceGetUUID") &&
           Load(&name, "nvmlDeviceGetName") && Load(&memory, "nvmlDeviceGetMemoryInfo_v2");
  }
};

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open(const char* library_name) {
  auto library = std::make_unique<Library>();
  library->handle = ::dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
  if (library->handle == nullptr) return absl::NotFoundError("there is no NVIDIA driver here");
  // The handle is never closed: the library keeps threads and state of its own.
  if (!library->LoadAll()) return absl::UnavailableError(absl::StrCat(library_name, " is too old"));
  RETURN_IF_ERROR(Check(library->init(), "nvmlInit"));
  return std::unique_ptr<Nvml>(new Nvml(std::move(library)));
}

Nvml::Nvml(std::unique_ptr<Library> library) : library_(std::move(library)) {}
Nvml::~Nvml() { library_->shutdown(); }

absl::StatusOr<std::vector<Gpu>> Nvml::Gpus() const {
  unsigned int count = 0;
  RETURN_IF_ERROR(Check(library_->count(&count), "counting GPUs"));
  std::vector<Gpu> gpus;
  for (unsigned int i = 0; i < count; ++i) {
    NvmlDevice device = nullptr;
    char uuid[96] = {}, name[96] = {};
    MemoryV2 memory{kMemoryV2, 0, 0, 0, 0};
    RETURN_IF_ERROR(Check(library_->by_index(i, &device), "opening a GPU"));
    RETURN_IF_ERROR(Check(library_->uuid(device, uuid, sizeof(uuid)), "reading a GPU's UUID"));
    RETURN_IF_ERROR(Check(library_->name(device, name, sizeof(name)), "reading a GPU's name"));
    RETURN_IF_ERROR(Check(library_->memory(device, &memory), "reading a GPU's memory"));
    int major = 0, minor = 0;
    if (library_->capability != nullptr && library_->capability(device, &major, &minor) != 0) {
      major = minor = 0;
    }
    // In this version `used` is without what the driver reserves.
    gpus.push_back({uuid, name, memory.total, memory.reserved, memory.used, major * 10 + minor});
  }
  return gpus;
}

}  // namespace switchyard::supervisor
