#include "worker/plan.h"

#include <algorithm>
#include <bit>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/status_macros.h"
#include "worker/backend.h"
#include "worker/device/device.h"
#include "worker/engine/graph_schedule.h"
#include "worker/engine/kv_layout.h"

namespace switchyard::worker {
namespace {

constexpr uint32_t kMaxSequences = 256;
constexpr uint32_t kMaxPrefillChunk = 65536;

// Anonymous memory of a worker on `cpu` besides its engine and its tokenizer: gRPC, some twenty
// threads, what the allocator keeps. Measured as RssAnon of /proc/PID/status with checkpoints of a
// few megabytes: 1.6 MB before the first stream, 2.1 MB once its master is filled, 3.2 MB asleep
// after some hundred requests. The pages of the program itself (14 MB) are shared by all workers.
constexpr uint64_t kCpuProcessBytes = uint64_t{4} << 20;
// Resident bytes of a tokenizer per byte of its tokenizer.json. Measured likewise: 19 MB for
// 128,000 tokens in 6.8 MB, which is 2.8.
constexpr uint64_t kTokenizerBytesPerByte = 3;

// Device memory of a worker on a GPU besides its engine's: context, modules, streams. Measured as
// what `nvidia-smi` shows above the parts of the lease with each demonstration model resident: 527
// to 533 MiB (H200, driver 580, kernels of one capability). With cuBLASLt's the six models together
// stay 43 MiB below their leases.
constexpr uint64_t kCudaProcessBytes = uint64_t{534} << 20;
// A chunk is one physical allocation. An H200 gives back 45 GiB in 33 to 36 ms when it came in
// pieces of 512 MiB, in 25 ms of 1 GiB; eviction takes whole chunks, and layers wait for them.
constexpr uint64_t kCudaLargestChunk = uint64_t{1} << 30;
constexpr uint64_t kCudaChunksWanted = 64;

absl::StatusOr<kernels::DType> KvDType(const v1::Model& model, const DeviceTraits& device) {
  switch (model.kv_cache()) {
    case v1::KV_CACHE_AUTO:
      return device.is_cpu ? kernels::DType::kF32 : kernels::DType::kBF16;
    case v1::KV_F32:
      if (device.is_cpu) return kernels::DType::kF32;
      break;
    case v1::KV_BF16:
      if (!device.is_cpu) return kernels::DType::kBF16;
      break;
    case v1::KV_FP8:
      if (!device.is_cpu) return kernels::DType::kF8E4M3;
      break;
    default:
      break;
  }
  return absl::UnimplementedError(absl::StrCat(
      "kv_cache: ", v1::KvCacheType_Name(model.kv_cache()), " is not supported on ", device.name,
      "; leave it out or say ", device.is_cpu ? "KV_F32" : "KV_BF16 or KV_FP8"));
}

absl::Status CheckOptions(const v1::Model& model, const DeviceTraits& device) {
  if (!model.fast_prefill()) return absl::OkStatus();
  if (device.is_cpu) return absl::UnimplementedError("fast_prefill is not supported on cpu");
  if (model.batch_invariant()) {
    return absl::InvalidArgumentError(
        "fast_prefill and batch_invariant: prompts and what is generated would be computed "
        "differently; leave one out");
  }
  return absl::OkStatus();
}

// No chunk is longer than a context; every chunk costs activations and KV of the smallest pool.
int32_t ChunkOf(const v1::Model& model, const DeviceTraits& device, int32_t context_length) {
  if (model.prefill_chunk() != 0) return static_cast<int32_t>(model.prefill_chunk());
  return device.is_cpu ? 256 : std::min(8192, context_length);
}

// On `cpu` the host's side of a buffer takes from the same memory as the device's.
uint64_t FixedBytes(const Architecture& arch, const EngineLimits& limits,
                    const DeviceTraits& device, const kernels::Ops& ops, uint64_t tokenizer_bytes) {
  const EngineBytes engine = FixedBytesOf(arch, ops, limits);
  uint64_t fixed = engine.device + device.process_bytes;
  if (device.is_cpu) {
    fixed += engine.host + kTokenizerBytesPerByte * tokenizer_bytes;
  } else {
    fixed += GraphBytes(arch, limits.max_sequences);
  }
  return RoundUp(fixed, device.page_bytes);
}

KvLayout KvOf(const Architecture& arch, const EngineLimits& limits, const DeviceTraits& device) {
  return PlanKv(arch, limits.kv_dtype, limits.context_length, limits.max_sequences,
                limits.prefill_chunk, device.page_bytes);
}

absl::Status Above(const char* field, uint32_t value, uint32_t bound, const char* why) {
  if (value <= bound) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, ", at most ", bound, why));
}

}  // namespace

absl::StatusOr<DeviceTraits> TraitsOf(const std::string& device) {
  DeviceTraits traits;
  traits.name = device;
  if (device == "cpu") {
    traits.page_bytes = kCpuPageBytes;
    traits.process_bytes = kCpuProcessBytes;
    return traits;
  }
  if (!HaveCuda() || !absl::StartsWith(device, "GPU-")) {
    return absl::FailedPreconditionError(absl::StrCat("device \"", device,
                                                      "\": this build drives only \"cpu\"",
                                                      HaveCuda() ? " and GPUs by their UUID" : ""));
  }
  traits.is_cpu = false;
  traits.page_bytes = kCudaPageBytes;
  traits.process_bytes = kCudaProcessBytes;
  return traits;
}

void FitImage(const DeviceTraits& device, ImageLayout& image) {
  if (device.is_cpu) return;
  image.bytes = RoundUp(image.bytes, device.page_bytes);
  image.chunk_bytes = std::clamp(std::bit_ceil(CeilDiv(image.bytes, kCudaChunksWanted)),
                                 device.page_bytes, kCudaLargestChunk);
  image.chunks = static_cast<uint32_t>(CeilDiv(image.bytes, image.chunk_bytes));
  // Of another size than the image of the same checkpoint on `cpu`.
  if (!image.key.empty()) absl::StrAppend(&image.key, "-pages");
}

absl::StatusOr<EngineLimits> ResolveLimits(const v1::Model& model, const Architecture& arch,
                                           const DeviceTraits& device) {
  RETURN_IF_ERROR(CheckOptions(model, device));
  const uint32_t positions = static_cast<uint32_t>(arch.max_positions);
  RETURN_IF_ERROR(Above("context_length", model.context_length(), positions,
                        ", the checkpoint's max_position_embeddings"));
  RETURN_IF_ERROR(Above("max_sequences", model.max_sequences(), kMaxSequences, ""));
  RETURN_IF_ERROR(Above("prefill_chunk", model.prefill_chunk(), kMaxPrefillChunk, ""));
  if (model.context_length() == 1) {
    return absl::InvalidArgumentError(
        "context_length is 1, at least 2: a token of prompt and one of output");
  }
  EngineLimits limits;
  ASSIGN_OR_RETURN(limits.kv_dtype, KvDType(model, device));
  auto or_default = [](uint32_t value, uint32_t fallback) {
    return static_cast<int32_t>(value == 0 ? fallback : value);
  };
  limits.context_length = or_default(model.context_length(), positions);
  limits.max_sequences = or_default(model.max_sequences(), 8);
  limits.prefill_chunk = ChunkOf(model, device, limits.context_length);
  // On the CPU a step has finished when its launch returns: there is nothing to keep busy.
  limits.launch_ahead = device.is_cpu ? 0 : 1;
  return limits;
}

v1::Plan MakePlan(const v1::Model& model, const Architecture& arch, const ImageLayout& image,
                  const EngineLimits& limits, const DeviceTraits& device, const kernels::Ops& ops,
                  uint64_t tokenizer_bytes) {
  const KvLayout kv = KvOf(arch, limits, device);
  v1::Plan plan;
  plan.set_model(model.name());
  plan.set_family(arch.family);
  plan.set_architecture(Describe(arch));
  plan.set_parameters(static_cast<uint64_t>(ParameterCount(arch)));
  plan.set_image_bytes(image.bytes);
  plan.set_chunk_bytes(image.chunk_bytes);
  plan.set_chunks(image.chunks);
  plan.set_fixed_bytes(FixedBytes(arch, limits, device, ops, tokenizer_bytes));
  plan.set_kv_bytes_per_token(kv.bytes_per_token);
  plan.set_kv_window_bytes(kv.window_bytes);
  plan.set_kv_smallest_bytes(kv.smallest_bytes);
  plan.set_kv_useful_bytes(kv.useful_bytes);
  uint64_t granule = 0;
  for (const KvGroup& group : kv.groups) granule = std::max(granule, group.granule_bytes);
  plan.set_kv_granule_bytes(granule);
  plan.set_context_length(static_cast<uint32_t>(limits.context_length));
  plan.set_max_sequences(static_cast<uint32_t>(limits.max_sequences));
  plan.set_prefill_chunk(static_cast<uint32_t>(limits.prefill_chunk));
  plan.set_vocabulary(static_cast<uint32_t>(arch.vocabulary));
  plan.set_image_key(image.key);
  for (const std::string& note : image.notes) plan.add_notes(note);
  EngineLimits shorter = limits;
  for (uint32_t length = std::bit_floor(plan.context_length() - 1); length >= 2; length /= 2) {
    shorter.context_length = static_cast<int32_t>(length);
    shorter.prefill_chunk = ChunkOf(model, device, shorter.context_length);
    v1::Plan::Context& context = *plan.add_shorter();
    context.set_context_length(length);
    context.set_bytes(FixedBytes(arch, shorter, device, ops, tokenizer_bytes) +
                      KvOf(arch, shorter, device).smallest_bytes);
  }
  return plan;
}

}  // namespace switchyard::worker
