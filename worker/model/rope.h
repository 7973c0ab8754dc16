#pragma once

// Rotary position embeddings: the scaled variants only change the inverse frequencies and a factor
// on both cosine and sine.

#include <cstdint>

#include "worker/model/architecture.h"
#include "worker/model/config_reader.h"

namespace switchyard::worker {

enum class RopeType : uint8_t { kDefault, kLinear, kLlama3, kYarn };

struct RopeParameters {
  RopeType type = RopeType::kDefault;
  double theta = 10000;
  int32_t dim = 0;              // rotary elements of a head, even
  double factor = 1;            // linear, llama3, yarn
  double original_context = 0;  // positions that the model was first trained for: llama3, yarn
  double low_freq_factor = 1;   // llama3
  double high_freq_factor = 4;
  double beta_fast = 32;  // yarn
  double beta_slow = 1;
  bool truncate = true;
  double attention_factor = 1;
};

// default: theta^(-2i/dim). linear: / factor. llama3: long wavelengths / factor, short ones kept, a
// ramp between. yarn: the same with a ramp over dimensions (Peng et al. 2023).
RopeTable MakeRope(const RopeParameters& parameters);
// The attention factor that yarn takes from its factor.
double YarnMagnitude(double factor, double mscale = 1);

// What a class takes where a config is silent.
struct RopeDefaults {
  double theta = 10000;
  double partial_rotary_factor = 1;
  int32_t head_dim = 0;
  int32_t max_positions = 0;
};

// Reads a `rope_scaling` or `rope_parameters` object ("rope_type", or "type" as older files have
// it). `top` is config.json itself, for what stands beside the object. Problems are left in the
// reader's status: types that we do not have are refused by name.
RopeParameters ReadRope(ConfigReader& rope, ConfigReader& top, const RopeDefaults& defaults);

}  // namespace switchyard::worker
