#include "tests/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "tests/reference/reference_parts.h"

namespace switchyard::kernels {

namespace {

constexpr int kFp8Nan = 0x7f;

// e4m3 without infinities; e2m1; both from their definition.
double SmallFloat(int bits, int exponent_bits, int fraction_bits, int bias) {
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const bool negative = ((bits >> (fraction_bits + exponent_bits)) & 1) != 0;
  const double size =
      exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                    : std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
  return negative ? -size : size;
}

}  // namespace

double ReferenceFloat(const void* data, DType type, int64_t index) {
  if (type == DType::kF32) return static_cast<const float*>(data)[index];
  if (type == DType::kF8E4M3) {
    const uint8_t bits = static_cast<const uint8_t*>(data)[index];
    return (bits & 0x7f) == kFp8Nan ? NAN : SmallFloat(bits, 4, 3, 7);
  }
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  if (type == DType::kBF16) {
    const uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
  }
  const int sign = bits >> 15, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return sign ? -size : size;
}

namespace {

// The four bits of column k of a row of 32-bit words.
int Nibble(const Matrix& w, int64_t row, int64_t k) {
  constexpr int kNibbleOfColumn[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  const uint32_t word = static_cast<const uint32_t*>(w.data)[(row * w.k + k) / 8];
  return static_cast<int>(word >> (4 * kNibbleOfColumn[k % 8]) & 15);
}

}  // namespace

uint8_t ReferenceFp8(double value) {
  static const std::vector<double> sizes = [] {  // ascending, as their bits are
    std::vector<double> all;
    for (int bits = 0; bits < kFp8Nan; ++bits) all.push_back(SmallFloat(bits, 4, 3, 7));
    return all;
  }();
  if (std::isnan(value)) return kFp8Nan;
  const double size = std::min(std::fabs(value), sizes.back());
  const int above =
      static_cast<int>(std::lower_bound(sizes.begin(), sizes.end(), size) - sizes.begin());
  const int below = std::max(above - 1, 0);
  const double down = size - sizes[below], up = sizes[above] - size;
  const int best = down < up || (down == up && below % 2 == 0) ? below : above;
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

double ReferenceWeight(const Matrix& w, int64_t batch, int64_t n, int64_t k) {
  const int64_t row = batch * w.n + n;
  switch (w.dtype) {
    case DType::kF8E4M3: {
      const int bits = static_cast<const uint8_t*>(w.data)[row * w.k + k];
      const int64_t block_rows = (w.n + 127) / 128, block_columns = (w.k + 127) / 128;
      const int64_t scale =
          w.group == 0 ? row : (batch * block_rows + n / 128) * block_columns + k / 128;
      return SmallFloat(bits, 4, 3, 7) * static_cast<const float*>(w.scales)[scale];
    }
    case DType::kInt4: {
      const int64_t group = row * (w.k / w.group) + k / w.group;
      const int zero = w.zeros != nullptr ? static_cast<const uint8_t*>(w.zeros)[group] : 8;
      return (Nibble(w, row, k) - zero) * ReferenceFloat(w.scales, DType::kF16, group);
    }
    case DType::kMxfp4: {
      const int scale = static_cast<const uint8_t*>(w.scales)[row * (w.k / 32) + k / 32];
      return std::ldexp(SmallFloat(Nibble(w, row, k), 2, 1, 1), scale - 127);
    }
    default:
      return ReferenceFloat(w.data, w.dtype, row * w.k + k);
  }
}

std::vector<double> ReferenceNorm(const float* x, const float* weight, double eps, int64_t count) {
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += double{x[i]} * x[i];
  std::vector<double> out(count);
  for (int64_t i = 0; i < count; ++i) {
    out[i] = x[i] / std::sqrt(squares / count + eps) * (weight != nullptr ? weight[i] : 1.0);
  }
  return out;
}

double ReferenceActivation(Activation activation, double gate, double up) {
  switch (activation) {
    case Activation::kSilu:
      return gate / (1 + std::exp(-gate)) * up;
    case Activation::kGeluTanh:
      return 0.5 * gate *
             (1 + std::tanh(std::sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate))) * up;
    case Activation::kSwigluClamped:
      gate = std::min(gate, 7.0);
      up = std::max(-7.0, std::min(up, 7.0));
      return (up + 1) * gate / (1 + std::exp(-1.702 * gate));
  }
  return 0;
}

double ReferenceDot(const Matrix& w, int64_t batch, int64_t n, const double* x) {
  double sum = 0;
  for (int64_t k = 0; k < w.k; ++k) sum += ReferenceWeight(w, batch, n, k) * x[k];
  return sum;
}

namespace {

class ReferenceOps final : public Ops {
 public:
  DType activation() const override { return DType::kF32; }
  int64_t ScratchBytes(const ScratchShape&) const override { return 0; }

  OpError Embed(const EmbedArgs& a, Scratch, Stream) override {
    for (int32_t t = 0; t < a.rows.rows; ++t) {
      if (a.rows.slot[t] < 0) continue;
      const int32_t id = a.tokens.ids[a.rows.slot[t] * a.tokens.stride + a.rows.position[t]];
      for (int64_t k = 0; k < a.table.k; ++k) {
        static_cast<float*>(a.out)[t * a.table.k + k] =
            static_cast<float>(a.scale * ReferenceWeight(a.table, 0, id, k));
      }
    }
    return {};
  }

  OpError Linear(const LinearArgs& a, Scratch, Stream) override {
    for (int64_t t = 0; t < a.rows; ++t) {
      const std::vector<double> x = Widen(static_cast<const float*>(a.x) + t * a.w.k, a.w.k);
      for (int64_t n = 0; n < a.w.n; ++n) {
        float& out = static_cast<float*>(a.out)[t * a.w.n + n];
        const double y = ReferenceDot(a.w, 0, n, x.data()) + (a.bias != nullptr ? a.bias[n] : 0);
        out = static_cast<float>(a.accumulate ? out + y : y);
      }
    }
    return {};
  }

  OpError PostNormAdd(const PostNormAddArgs& a, Scratch, Stream) override {
    for (int64_t t = 0; t < a.rows; ++t) {
      const std::vector<double> y =
          ReferenceNorm(static_cast<const float*>(a.x) + t * a.width, a.norm, a.eps, a.width);
      for (int64_t i = 0; i < a.width; ++i) {
        static_cast<float*>(a.residual)[t * a.width + i] += static_cast<float>(y[i]);
      }
    }
    return {};
  }

  OpError MlpInput(const MlpInputArgs& a, Scratch, Stream) override {
    const int64_t hidden = a.gate_up.k, intermediate = a.gate_up.n / 2;
    for (int64_t t = 0; t < a.rows; ++t) {
      const float* row = static_cast<const float*>(a.x) + t * hidden;
      const std::vector<double> x =
          a.norm != nullptr ? ReferenceNorm(row, a.norm, a.eps, hidden) : Widen(row, hidden);
      for (int64_t i = 0; i < intermediate; ++i) {
        double gate = ReferenceDot(a.gate_up, 0, i, x.data());
        double up = ReferenceDot(a.gate_up, 0, intermediate + i, x.data());
        if (a.bias != nullptr) {
          gate += a.bias[i];
          up += a.bias[intermediate + i];
        }
        static_cast<float*>(a.out)[t * intermediate + i] =
            static_cast<float>(ReferenceActivation(a.activation, gate, up));
      }
    }
    return {};
  }

  OpError Head(const HeadArgs& a, Scratch, Stream) override {
    for (int64_t r = 0; r < a.count; ++r) {
      const std::vector<double> x =
          ReferenceNorm(static_cast<const float*>(a.x) + a.row[r] * a.w.k, a.norm, a.eps, a.w.k);
      for (int64_t n = 0; n < a.w.n; ++n) {
        double y = ReferenceDot(a.w, 0, n, x.data());
        if (a.softcap > 0) y = a.softcap * std::tanh(y / a.softcap);
        a.logits[r * a.w.n + n] = static_cast<float>(y);
      }
    }
    return {};
  }

  OpError AttentionInput(const AttentionInputArgs& a, Scratch, Stream) override {
    ReferenceAttentionInput(a);
    return {};
  }
  OpError Attention(const AttentionArgs& a, Scratch, Stream) override {
    ReferenceAttention(a);
    return {};
  }
  OpError MoeRoute(const MoeRouteArgs& a, Scratch, Stream) override {
    ReferenceMoeRoute(a);
    return {};
  }
  OpError MoeExperts(const MoeExpertsArgs& a, Scratch, Stream) override {
    ReferenceMoeExperts(a);
    return {};
  }
  OpError Sample(const SampleArgs& a, Scratch, Stream) override {
    ReferenceSample(a);
    return {};
  }
  OpError Logprobs(const LogprobArgs& a, Scratch, Stream) override {
    ReferenceLogprobs(a);
    return {};
  }
};

}  // namespace

std::unique_ptr<Ops> MakeReferenceOps() { return std::make_unique<ReferenceOps>(); }

}  // namespace switchyard::kernels
