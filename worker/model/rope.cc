#include "worker/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/utf8.h"

namespace switchyard::worker {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;
constexpr double kHuge = 1e12;
constexpr int32_t kMaxPositions = 1 << 28;

double Llama3(const RopeParameters& p, double inv_freq) {
  const double wavelength = kTwoPi / inv_freq;
  if (wavelength < p.original_context / p.high_freq_factor) return inv_freq;
  if (wavelength > p.original_context / p.low_freq_factor) return inv_freq / p.factor;
  const double smooth = (p.original_context / wavelength - p.low_freq_factor) /
                        (p.high_freq_factor - p.low_freq_factor);
  return (1 - smooth) * inv_freq / p.factor + smooth * inv_freq;
}

// The dimension whose wavelength fits `rotations` times into the original context.
double YarnDimension(const RopeParameters& p, double rotations) {
  return p.dim * std::log(p.original_context / (rotations * kTwoPi)) / (2 * std::log(p.theta));
}

void Yarn(const RopeParameters& p, std::vector<float>& inv_freq) {
  double low = YarnDimension(p, p.beta_fast);
  double high = YarnDimension(p, p.beta_slow);
  if (p.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, p.dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv_freq[i] = static_cast<float>(inv_freq[i] * (1 - ramp) + inv_freq[i] / p.factor * ramp);
  }
}

double YarnAttentionFactor(ConfigReader& rope, double factor) {
  if (rope.Has("attention_factor")) return rope.Number("attention_factor", 1, 1e-3, 1e3);
  const double mscale = rope.Number("mscale", 0, 0, 1e3);
  const double mscale_all_dim = rope.Number("mscale_all_dim", 0, 0, 1e3);
  if (mscale == 0 || mscale_all_dim == 0) return YarnMagnitude(factor);
  return YarnMagnitude(factor, mscale) / YarnMagnitude(factor, mscale_all_dim);
}

RopeType ReadType(ConfigReader& rope) {
  const std::string name = rope.String(rope.Has("rope_type") ? "rope_type" : "type", "default");
  if (name == "default") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "llama3") return RopeType::kLlama3;
  if (name == "yarn") return RopeType::kYarn;
  rope.RefuseUnsupported(absl::StrCat("rope_type \"", ValidUtf8(name, 100),
                                      "\" is not supported; known: default, linear, llama3, yarn"));
  return RopeType::kDefault;
}

double ReadOriginalContext(ConfigReader& rope, ConfigReader& top, int32_t max_positions) {
  const char* key = "original_max_position_embeddings";
  ConfigReader& from = top.Has(key) ? top : rope;
  return from.Int(key, max_positions, 1, kMaxPositions);
}

void ReadLlama3(ConfigReader& rope, RopeParameters& p) {
  p.low_freq_factor = rope.Number("low_freq_factor", p.low_freq_factor, 1e-3, 1e6);
  p.high_freq_factor = rope.Number("high_freq_factor", p.high_freq_factor, 1e-3, 1e6);
  if (p.high_freq_factor <= p.low_freq_factor) {
    rope.Refuse(absl::StrCat("high_freq_factor ", p.high_freq_factor,
                             " must be above low_freq_factor ", p.low_freq_factor));
  }
}

void ReadYarn(ConfigReader& rope, RopeParameters& p) {
  const double beta_fast = rope.Number("beta_fast", 0, 0, 1e6);
  const double beta_slow = rope.Number("beta_slow", 0, 0, 1e6);
  if (beta_fast > 0) p.beta_fast = beta_fast;
  if (beta_slow > 0) p.beta_slow = beta_slow;
  p.truncate = rope.Bool("truncate", true);
  p.attention_factor = YarnAttentionFactor(rope, p.factor);
}

int32_t ReadDim(ConfigReader& rope, ConfigReader& top, const RopeDefaults& defaults) {
  const char* key = "partial_rotary_factor";
  ConfigReader& from = rope.Has(key) ? rope : top;
  const double partial = from.Number(key, defaults.partial_rotary_factor, 0, 1);
  const int32_t dim = static_cast<int32_t>(defaults.head_dim * partial);
  if (dim < 2 || dim % 2 != 0) {
    rope.Refuse(absl::StrCat(dim, " rotary elements of a head of ", defaults.head_dim,
                             "; they must be even and at least 2"));
    return 2;
  }
  return dim;
}

}  // namespace

double YarnMagnitude(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

RopeTable MakeRope(const RopeParameters& p) {
  RopeTable table;
  table.dim = p.dim;
  table.scale = static_cast<float>(p.attention_factor);
  for (int32_t i = 0; i < p.dim / 2; ++i) {
    double inv_freq = std::pow(p.theta, -2.0 * i / p.dim);
    if (p.type == RopeType::kLinear) inv_freq /= p.factor;
    if (p.type == RopeType::kLlama3) inv_freq = Llama3(p, inv_freq);
    table.inv_freq.push_back(static_cast<float>(inv_freq));
  }
  if (p.type == RopeType::kYarn) Yarn(p, table.inv_freq);
  return table;
}

RopeParameters ReadRope(ConfigReader& rope, ConfigReader& top, const RopeDefaults& defaults) {
  RopeParameters p;
  p.type = ReadType(rope);
  p.theta = rope.Number("rope_theta", defaults.theta, 1.001, kHuge);
  p.dim = ReadDim(rope, top, defaults);
  if (p.type == RopeType::kDefault) return p;
  p.original_context = ReadOriginalContext(rope, top, defaults.max_positions);
  if (rope.Has("factor")) {
    p.factor = rope.Number("factor", 1, 1e-3, 1e6);
  } else if (p.type == RopeType::kYarn) {
    p.factor = defaults.max_positions / p.original_context;
  } else {
    rope.Refuse("\"factor\" is missing");
  }
  if (p.type == RopeType::kLlama3) ReadLlama3(rope, p);
  if (p.type == RopeType::kYarn) ReadYarn(rope, p);
  return p;
}

}  // namespace switchyard::worker
