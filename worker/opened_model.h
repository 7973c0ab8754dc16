#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "switchyard/v1/model.pb.h"
#include "worker/engine/engine.h"
#include "worker/io/checkpoint.h"
#include "worker/model/architecture.h"
#include "worker/model/image.h"
#include "worker/plan.h"
#include "worker/tokenizer/tokenizer.h"
#include "worker/validate.h"

namespace switchyard::worker {

// All that a checkpoint's headers and configuration tell about a models.d entry; no weights are
// read and no device is touched. Immutable, and shared by every part of the worker.
struct OpenedModel {
  v1::Model model;
  DeviceTraits device;
  Checkpoint checkpoint;
  Architecture arch;
  ImageLayout image;
  std::unique_ptr<const Tokenizer> tokenizer;
  EngineLimits limits;
  RequestLimits request_limits;
  v1::Plan plan;
};

// A plan can be made before there are weights: config.json is enough for sizes. kServe, also for
// the plan of a model that is to be served: there must be some.
enum class OpenFor : uint8_t { kServe, kPlan };

// Reads config.json, generation_config.json, the safetensors headers and the whole tokenizer, so
// that what is broken is found when the model is planned, and not when it is needed. For a plan,
// weights and tokenizer may be missing (`tokenizer` is null then): a note says so.
absl::StatusOr<std::unique_ptr<const OpenedModel>> OpenModel(const v1::Model& model,
                                                             const std::string& device,
                                                             const kernels::Ops& ops,
                                                             OpenFor purpose = OpenFor::kServe);

}  // namespace switchyard::worker
