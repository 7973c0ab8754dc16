#pragma once

// The table itself: a row per `model_type`, plain data with a comment on every field. A new family
// is a new row, and a rule in family_rules.h only where no number or flag says what its config
// means.

#include <cstdint>
#include <string>
#include <vector>

#include "worker/model/architecture.h"
#include "worker/model/family_rules.h"

namespace switchyard::worker {

// What config.json may leave out.
struct ClassDefaults {
  int32_t vocabulary, hidden, intermediate, layers;
  int32_t q_heads;
  int32_t kv_heads;  // 0: q_heads
  int32_t head_dim;  // 0: hidden / q_heads
  int32_t max_positions;
  double norm_eps = 1e-6;
  double rope_theta = 10000;
  double partial_rotary_factor = 1;
  bool tied = false;
  bool attention_bias = false;
  int32_t bos_id = -1, eos_id = -1;  // -1: none
};

enum class Bias : uint8_t { kNever, kQkv, kQkvo };          // where `attention_bias` puts one
enum class QkNorm : uint8_t { kNever, kAlways, kIfAsked };  // kIfAsked: `use_qk_norm`

struct Family {
  const char* model_type;
  const char* name;
  ClassDefaults defaults;
  kernels::Activation activation = kernels::Activation::kSilu;
  const char* activation_key = "hidden_act";
  const char* activation_name = "silu";  // the one that the config may ask for
  Bias bias = Bias::kQkvo;
  QkNorm qk_norm = QkNorm::kNever;
  bool reads_mlp_bias = false;
  bool hidden_in_heads = false;  // the class insists on hidden % q_heads == 0
  bool nested = false;           // the text model's fields are in `text_config`
  bool sinks = false;
  bool post_norms = false;
  bool scales_embedding = false;     // by sqrt(hidden)
  bool reads_query_scalar = false;   // scores by query_pre_attn_scalar^-0.5, not head_dim^-0.5
  bool reads_logit_softcap = false;  // final_logit_softcapping
  WindowRule windows = NoWindows;
  MixtureRule mixture = NoMixture;
  RopeRule ropes = OneRope;
  TensorNames names = {};
};

const std::vector<Family>& Families();
// Null: not in the table.
const Family* FindFamily(const std::string& model_type);

}  // namespace switchyard::worker
