#include "worker/backend.h"

#include "absl/strings/str_cat.h"
#ifdef SWITCHYARD_HAVE_CUDA
#include "worker/device/cuda_device.h"
#endif

namespace switchyard::worker {

std::string SlowPrefill(const std::string& device, const kernels::Ops& ops,
                        const v1::Model& model) {
  if (device == "cpu" || model.batch_invariant() || *ops.matrix_library() != 0) return "";
  return "prefill is slower than it could be: libcublasLt.so is neither where libraries are looked "
         "for nor in /usr/local/cuda/lib64, or may not be read, or this build knows nothing of it";
}

#ifdef SWITCHYARD_HAVE_CUDA

namespace {

// More than any GPU has: plans hold for all of them.
constexpr int32_t kMostMultiprocessors = 256;

kernels::CudaOptions OptionsOf(const v1::Model& model) {
  kernels::CudaOptions options;
  options.batch_invariant = model.batch_invariant();
  options.fast_prefill = model.fast_prefill();
  return options;
}

absl::Status Refused(const std::string& device, kernels::OpError error) {
  return absl::FailedPreconditionError(absl::StrCat("device ", device, ": ", error.message));
}

}  // namespace

bool HaveCuda() { return true; }

void SelectDevice(const std::string& device) {
  if (device != "cpu") SelectCudaDevice(device);
}

absl::StatusOr<Backend> OpenBackend(const std::string& device, int threads,
                                    const v1::Model& model) {
  if (device == "cpu") return Backend{MakeCpuDevice(threads), kernels::MakeCpuOps(threads)};
  kernels::OpError error;
  std::unique_ptr<kernels::Ops> ops = kernels::MakeCudaOps(OptionsOf(model), &error);
  if (ops == nullptr) return Refused(device, error);
  return Backend{MakeCudaDevice(), std::move(ops)};
}

absl::StatusOr<std::unique_ptr<kernels::Ops>> PlanningOps(const std::string& device, int threads,
                                                          const v1::Model& model) {
  if (device == "cpu") return kernels::MakeCpuOps(threads);
  kernels::CudaOptions options = OptionsOf(model);
  options.plan_multiprocessors = kMostMultiprocessors;
  kernels::OpError error;
  std::unique_ptr<kernels::Ops> ops = kernels::MakeCudaOps(options, &error);
  if (ops == nullptr) return Refused(device, error);
  return ops;
}

#else

bool HaveCuda() { return false; }

void SelectDevice(const std::string&) {}

absl::StatusOr<Backend> OpenBackend(const std::string& device, int threads, const v1::Model&) {
  if (device != "cpu") {
    return absl::FailedPreconditionError(
        absl::StrCat("device \"", device, "\": this build drives only \"cpu\""));
  }
  return Backend{MakeCpuDevice(threads), kernels::MakeCpuOps(threads)};
}

absl::StatusOr<std::unique_ptr<kernels::Ops>> PlanningOps(const std::string&, int threads,
                                                          const v1::Model&) {
  return kernels::MakeCpuOps(threads);
}

#endif

}  // namespace switchyard::worker
