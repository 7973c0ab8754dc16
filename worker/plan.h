#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "switchyard/v1/model.pb.h"
#include "worker/engine/engine.h"
#include "worker/model/architecture.h"
#include "worker/model/image.h"

namespace switchyard::worker {

// What a plan needs to know of a device; known without touching it.
struct DeviceTraits {
  std::string name;  // as it was asked for: "cpu", or a GPU's UUID
  bool is_cpu = true;
  uint64_t page_bytes = 0;     // of its arenas
  uint64_t process_bytes = 0;  // what an idle worker holds before it has a model
};
// FAILED_PRECONDITION for a device that this build cannot drive.
absl::StatusOr<DeviceTraits> TraitsOf(const std::string& device);

// Pads an image to what the device's memory comes in, so that its bytes are the lease's, and cuts
// it into chunks as large as giving memory back quickly asks for.
void FitImage(const DeviceTraits& device, ImageLayout& image);

// The limits of a models.d entry with every default filled in. INVALID_ARGUMENT names the field,
// the value and the bound; UNIMPLEMENTED names what is not supported yet.
absl::StatusOr<EngineLimits> ResolveLimits(const v1::Model& model, const Architecture& arch,
                                           const DeviceTraits& device);

// `tokenizer_bytes`: size of tokenizer.json.
v1::Plan MakePlan(const v1::Model& model, const Architecture& arch, const ImageLayout& image,
                  const EngineLimits& limits, const DeviceTraits& device, const kernels::Ops& ops,
                  uint64_t tokenizer_bytes);

}  // namespace switchyard::worker
