#include "worker/opened_model.h"

#include <malloc.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/model/families.h"

namespace switchyard::worker {
namespace {

uint64_t FileBytes(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<uint64_t>(bytes);
}

RequestLimits LimitsOfRequests(const OpenedModel& opened) {
  RequestLimits limits;
  limits.context_length = opened.limits.context_length;
  limits.vocabulary = opened.arch.vocabulary;
  limits.defaults = WithClassDefaults(opened.checkpoint.generation(), opened.checkpoint.config());
  return limits;
}

Quantize QuantizeOf(const v1::Model& model) {
  switch (model.quantize()) {
    case v1::FP8:
      return Quantize::kFp8;
    case v1::INT4:
      return Quantize::kInt4;
    default:
      return Quantize::kAsStored;
  }
}

// What weights will be stored as where config.json says no more.
kernels::DType TypeByConfig(const nlohmann::json& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto type = config.find(key);
    if (type == config.end() || !type->is_string()) continue;
    if (*type == "float32") return kernels::DType::kF32;
    if (*type == "float16") return kernels::DType::kF16;
  }
  return kernels::DType::kBF16;
}

// `missing`: why there are no weights.
absl::StatusOr<ImageLayout> PlanByConfig(const Architecture& arch, const Checkpoint& checkpoint,
                                         Quantize quantize, const absl::Status& missing) {
  ASSIGN_OR_RETURN(const QuantizationConfig config, ReadQuantizationConfig(checkpoint.config()));
  ASSIGN_OR_RETURN(
      ImageLayout image,
      PlanImageWithoutWeights(arch, TypeByConfig(checkpoint.config()), config, quantize));
  image.notes.push_back(absl::StrCat("no weights here, so that it cannot be served yet (",
                                     missing.message(),
                                     "): sizes are those that config.json gives"));
  return image;
}

}  // namespace

absl::StatusOr<std::unique_ptr<const OpenedModel>> OpenModel(const v1::Model& model,
                                                             const std::string& device,
                                                             const kernels::Ops& ops,
                                                             OpenFor purpose) {
  ASSIGN_OR_RETURN(DeviceTraits traits, TraitsOf(device));
  absl::StatusOr<Checkpoint> found = Checkpoint::Open(model.checkpoint());
  const absl::Status missing = found.status();
  const bool by_config = purpose == OpenFor::kPlan && absl::IsNotFound(missing);
  if (by_config) found = Checkpoint::OpenConfig(model.checkpoint());
  ASSIGN_OR_RETURN(Checkpoint checkpoint, std::move(found));
  ASSIGN_OR_RETURN(Architecture arch, ReadArchitecture(checkpoint.config()));
  ASSIGN_OR_RETURN(EngineLimits limits, ResolveLimits(model, arch, traits));
  const Quantize quantize = QuantizeOf(model);
  ASSIGN_OR_RETURN(ImageLayout image, by_config ? PlanByConfig(arch, checkpoint, quantize, missing)
                                                : PlanImage(arch, checkpoint, quantize));
  limits.quantized = HasQuantizedMatrix(image);
  if (model.fast_prefill() && !HasFp8RowMatrix(image)) {
    return absl::InvalidArgumentError(
        "fast_prefill needs fp8 weights with a scale per row, which no matrix besides the experts' "
        "has here; leave it out, or say quantize: FP8 for a bf16 checkpoint");
  }
  FitImage(traits, image);
  const std::string tokenizer_path = model.checkpoint() + "/tokenizer.json";
  std::unique_ptr<const Tokenizer> tokenizer;
  if (!by_config || std::filesystem::exists(tokenizer_path)) {
    ASSIGN_OR_RETURN(tokenizer, Tokenizer::Load(tokenizer_path));
  }
  ::malloc_trim(0);  // parsing JSON leaves several times its size behind

  auto opened = std::make_unique<OpenedModel>(OpenedModel{.model = model,
                                                          .device = std::move(traits),
                                                          .checkpoint = std::move(checkpoint),
                                                          .arch = std::move(arch),
                                                          .image = std::move(image),
                                                          .tokenizer = std::move(tokenizer),
                                                          .limits = limits,
                                                          .request_limits = {},
                                                          .plan = {}});
  opened->request_limits = LimitsOfRequests(*opened);
  opened->plan = MakePlan(model, opened->arch, opened->image, limits, opened->device, ops,
                          FileBytes(tokenizer_path));
  if (!by_config) opened->plan.set_checkpoint_bytes(opened->checkpoint.tensor_bytes());
  return std::unique_ptr<const OpenedModel>(std::move(opened));
}

}  // namespace switchyard::worker
