#include "worker/opened_model.h"

#include <malloc.h>

#include <filesystem>
#include <system_error>
#include <utility>

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

}  // namespace

absl::StatusOr<std::unique_ptr<const OpenedModel>> OpenModel(const v1::Model& model,
                                                             const std::string& device,
                                                             const kernels::Ops& ops) {
  ASSIGN_OR_RETURN(DeviceTraits traits, TraitsOf(device));
  ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(model.checkpoint()));
  ASSIGN_OR_RETURN(Architecture arch, ReadArchitecture(checkpoint.config()));
  ASSIGN_OR_RETURN(EngineLimits limits, ResolveLimits(model, arch, traits));
  ASSIGN_OR_RETURN(ImageLayout image, PlanImage(arch, checkpoint));
  FitImage(traits, image);
  const std::string tokenizer_path = model.checkpoint() + "/tokenizer.json";
  ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::Load(tokenizer_path));
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
  opened->plan.set_checkpoint_bytes(opened->checkpoint.tensor_bytes());
  return std::unique_ptr<const OpenedModel>(std::move(opened));
}

}  // namespace switchyard::worker
