#include "tests/worker/model/changed_model.h"

#include <algorithm>

#include "common/check.h"
#include "common/json.h"
#include "worker/model/families.h"

namespace switchyard::worker {

absl::StatusOr<ImageLayout> FillChanged(const std::string& name, const Change& change,
                                        Quantize quantize) {
  const std::string from = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/" + name;
  nlohmann::json config = *ReadJsonFile(from + "/config.json");
  Tensors tensors = ReadTensors(from + "/model.safetensors");
  if (change.config) change.config(config);
  if (change.tensors) change.tensors(tensors);
  const TempDir dir;
  WriteText(dir / "config.json", config.dump());
  WriteSafetensors(dir / "model.safetensors", tensors);
  auto checkpoint = Checkpoint::Open(dir.path());
  if (!checkpoint.ok()) return checkpoint.status();
  const auto arch = ReadArchitecture(checkpoint->config());
  if (!arch.ok()) return arch.status();
  auto layout = PlanImage(*arch, *checkpoint, quantize);
  if (!layout.ok()) return layout;
  std::vector<std::byte> image(layout->bytes);
  const absl::Status filled = FillImage(*layout, *checkpoint, image, nullptr);
  if (!filled.ok()) return filled;
  return layout;
}

WrittenTensor& Find(Tensors& tensors, const std::string& name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const WrittenTensor& tensor) { return tensor.name == name; });
  SY_CHECK(found != tensors.end());
  return *found;
}

}  // namespace switchyard::worker
