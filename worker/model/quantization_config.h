#pragma once

// In what form a checkpoint keeps its matrices, as config.json says. What its tensors say is held
// against it by stored_matrix.h.

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"

namespace switchyard::worker {

enum class WeightFormat : uint8_t {
  kPlain,      // bf16, f16 or f32
  kFp8,        // e4m3, `weight_scale` of the tensor or of each row
  kFp8Blocks,  // e4m3, `weight_scale_inv` (or `weight_scale`) of blocks of 128 x 128
  kAwq,        // `qweight` [k][n/8], AutoAWQ's version "gemm"
  kGptq,       // `qweight` [k/8][n], GPTQModel and AutoGPTQ
  kPacked,     // `weight_packed` [n][k/8], compressed-tensors "pack-quantized"
  kMxfp4,      // `_blocks` and `_scales` of experts, gpt-oss
};
const char* WeightFormatName(WeightFormat format);

struct QuantizationConfig {
  WeightFormat format = WeightFormat::kPlain;  // of the modules that are not kept as they were
  int32_t group = 0;        // 4-bit formats: columns of a scale; 0: the whole row
  bool zeros = false;       // kPacked: zero points are stored
  int32_t zero_offset = 0;  // kGptq: what is stored is the zero point less this
  // Modules that stay as they were: globs over a module's name between two dots. Names in the file
  // may be parts of names that end or begin at a dot, or "re:" expressions of no more than `.*`.
  std::vector<std::string> kept;

  // True where `kept` says so without doubt.
  bool Keeps(const std::string& module) const;
};

// `config`: config.json. INVALID_ARGUMENT: malformed; UNIMPLEMENTED: a format, or an option of one,
// that we do not have, by name. Without a quantization_config: kPlain.
absl::StatusOr<QuantizationConfig> ReadQuantizationConfig(const nlohmann::json& config);

}  // namespace switchyard::worker
