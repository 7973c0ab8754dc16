// A config.json: the family's architecture, how weights are quantized, special ids and sampling.

#include <nlohmann/json.hpp>

#include "common/json.h"
#include "tests/fuzz/target.h"
#include "worker/io/generation_config.h"
#include "worker/model/families.h"
#include "worker/model/quantization_config.h"

namespace switchyard::worker {
namespace {

void Read(const std::string& text) {
  const auto config = ParseJson(text, "config.json");
  if (!config.ok() || !config->is_object()) return;
  (void)ReadArchitecture(*config);
  const auto quantization = ReadQuantizationConfig(*config);
  if (quantization.ok()) (void)quantization->Keeps("model.layers.0.mlp.gate_proj");
  auto generation = ParseGenerationConfig(*config, "generation_config.json");
  if (!generation.ok()) return;
  (void)ReadSpecialIds(*config, "config.json", *generation);
  (void)WithClassDefaults(*generation, *config);
}

}  // namespace
}  // namespace switchyard::worker

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  switchyard::worker::Read(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
