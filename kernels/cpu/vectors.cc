// RMSNorm, activations and the passes over logits. All are bound by cache bandwidth, or for the
// exponentials by arithmetic; no weight is read here, so they are small beside any matrix product.
// Sums use four accumulator vectors in a fixed pattern: the order depends on the length alone.

#include "kernels/cpu/vectors.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/cpu/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/vectors.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels {
namespace HWY_NAMESPACE {

// f(i, count): count == lanes but for the last call.
template <class F>
HWY_INLINE void ForVectors(int64_t count, const F& f) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(FloatTag()));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) f(i, lanes);
  if (i < count) f(i, count - i);
}

HWY_INLINE FloatVec LoadUpTo(const float* x, int64_t count) {
  const FloatTag d;
  if (count == static_cast<int64_t>(hn::Lanes(d))) return hn::LoadU(d, x);
  return LoadSome(d, x, count);
}

HWY_INLINE void StoreUpTo(FloatVec v, int64_t count, float* out) {
  const FloatTag d;
  if (count == static_cast<int64_t>(hn::Lanes(d))) return hn::StoreU(v, d, out);
  float last[HWY_MAX_BYTES / sizeof(float)];
  hn::StoreU(v, d, last);
  std::memcpy(out, last, count * sizeof(float));
}

// 1 / sqrt(mean(x^2) + eps).
HWY_INLINE FloatVec NormFactor(const float* x, float eps, int64_t count) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVec s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const FloatVec v0 = hn::LoadU(d, x + i), v1 = hn::LoadU(d, x + i + lanes);
    const FloatVec v2 = hn::LoadU(d, x + i + 2 * lanes), v3 = hn::LoadU(d, x + i + 3 * lanes);
    s0 = hn::MulAdd(v0, v0, s0);
    s1 = hn::MulAdd(v1, v1, s1);
    s2 = hn::MulAdd(v2, v2, s2);
    s3 = hn::MulAdd(v3, v3, s3);
  }
  ForVectors(count - i, [&](int64_t j, int64_t n) {
    const FloatVec v = LoadUpTo(x + i + j, n);
    s0 = hn::MulAdd(v, v, s0);
  });
  const float sum = Sum(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
  return hn::Set(d, 1.0f / std::sqrt(sum / static_cast<float>(count) + eps));
}

void RmsNormT(const float* x, const float* weight, float eps, int64_t count, float* out) {
  const FloatVec factor = NormFactor(x, eps, count);
  ForVectors(count, [&](int64_t j, int64_t n) {
    const FloatVec v = hn::Mul(LoadUpTo(x + j, n), factor);
    StoreUpTo(hn::Mul(v, LoadUpTo(weight + j, n)), n, out + j);
  });
}

void RmsNormAddT(const float* x, const float* weight, float eps, int64_t count, float* y) {
  const FloatVec factor = NormFactor(x, eps, count);
  ForVectors(count, [&](int64_t j, int64_t n) {
    const FloatVec v = hn::Mul(LoadUpTo(x + j, n), factor);
    const FloatVec normed = hn::Mul(v, LoadUpTo(weight + j, n));
    StoreUpTo(hn::Add(LoadUpTo(y + j, n), normed), n, y + j);
  });
}

// NaN stays NaN, other than by Min and Max: damaged weights are to be seen in the logits.
HWY_INLINE FloatVec AtMost(FloatVec bound, FloatVec x) {
  return hn::IfThenElse(hn::Gt(x, bound), bound, x);
}
HWY_INLINE FloatVec AtLeast(FloatVec bound, FloatVec x) {
  return hn::IfThenElse(hn::Lt(x, bound), bound, x);
}

// 1 / (1 + exp(-x)); bounded so that exp stays finite.
HWY_INLINE FloatVec Sigmoid(FloatVec x) {
  const FloatTag d;
  const FloatVec one = hn::Set(d, 1.0f);
  const FloatVec bounded = hn::Max(x, hn::Set(d, -87.0f));
  return hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(bounded))));
}

// tanh(x) = 1 - 2 / (exp(2 x) + 1) loses digits near 0, so hn::Tanh, which uses expm1.
HWY_INLINE FloatVec GeluTanh(FloatVec x) {
  const FloatTag d;
  const FloatVec cube = hn::Mul(hn::Mul(x, x), x);
  const FloatVec inner =
      hn::Mul(hn::Set(d, 0.7978845608028654f), hn::MulAdd(hn::Set(d, 0.044715f), cube, x));
  const FloatVec half = hn::Mul(hn::Set(d, 0.5f), x);
  const FloatVec bounded = hn::Min(hn::Max(inner, hn::Set(d, -20.0f)), hn::Set(d, 20.0f));
  return hn::MulAdd(half, hn::Tanh(d, bounded), half);
}

void ActivateT(Activation activation, float* gate, const float* up, int64_t count) {
  const FloatTag d;
  switch (activation) {
    case Activation::kSilu:
      return ForVectors(count, [&](int64_t i, int64_t n) {
        const FloatVec g = LoadUpTo(gate + i, n);
        StoreUpTo(hn::Mul(hn::Mul(g, Sigmoid(g)), LoadUpTo(up + i, n)), n, gate + i);
      });
    case Activation::kGeluTanh:
      return ForVectors(count, [&](int64_t i, int64_t n) {
        const FloatVec g = LoadUpTo(gate + i, n);
        StoreUpTo(hn::Mul(GeluTanh(g), LoadUpTo(up + i, n)), n, gate + i);
      });
    case Activation::kSwigluClamped: {
      const FloatVec limit = hn::Set(d, 7.0f), one = hn::Set(d, 1.0f), alpha = hn::Set(d, 1.702f);
      return ForVectors(count, [&](int64_t i, int64_t n) {
        const FloatVec g = AtMost(limit, LoadUpTo(gate + i, n));
        const FloatVec u = AtLeast(hn::Neg(limit), AtMost(limit, LoadUpTo(up + i, n)));
        const FloatVec glu = hn::Mul(g, Sigmoid(hn::Mul(alpha, g)));
        StoreUpTo(hn::Mul(hn::Add(u, one), glu), n, gate + i);
      });
    }
  }
}

void AddScaledT(const float* x, float weight, int64_t count, float* y) {
  const FloatVec w = hn::Set(FloatTag(), weight);
  ForVectors(count, [&](int64_t i, int64_t n) {
    StoreUpTo(hn::MulAdd(LoadUpTo(x + i, n), w, LoadUpTo(y + i, n)), n, y + i);
  });
}

void ScaleT(float factor, int64_t count, float* x) {
  const FloatVec f = hn::Set(FloatTag(), factor);
  ForVectors(count,
             [&](int64_t i, int64_t n) { StoreUpTo(hn::Mul(LoadUpTo(x + i, n), f), n, x + i); });
}

void SoftCapT(float cap, int64_t count, float* x) {
  const FloatTag d;
  const FloatVec c = hn::Set(d, cap), bound = hn::Set(d, 20.0f);
  ForVectors(count, [&](int64_t i, int64_t n) {
    const FloatVec ratio = hn::Div(LoadUpTo(x + i, n), c);
    const FloatVec bounded = hn::Min(hn::Max(ratio, hn::Neg(bound)), bound);
    const FloatVec capped = hn::Mul(c, hn::Tanh(d, bounded));
    StoreUpTo(hn::IfThenElse(hn::IsNaN(ratio), ratio, capped), n, x + i);  // Tanh loses it
  });
}

float LargestT(const float* x, int64_t count) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVec largest = hn::Set(d, x[0]);
  auto nan = hn::IsNaN(largest);  // Max may take either of a number and NaN
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const FloatVec v = hn::LoadU(d, x + i);
    largest = hn::Max(largest, v);
    nan = hn::Or(nan, hn::IsNaN(v));
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  bool any_nan = !hn::AllFalse(d, nan);
  for (; i < count; ++i) {
    result = x[i] > result ? x[i] : result;
    any_nan |= std::isnan(x[i]);
  }
  return any_nan ? std::numeric_limits<float>::quiet_NaN() : result;
}

float SumExpT(const float* x, float offset, int64_t count, float* out) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const FloatVec o = hn::Set(d, offset);
  // Lanes are added up every 512 elements, in double: a sum over a vocabulary keeps its digits.
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += 512) {
    const int64_t size = begin + 512 < count ? 512 : count - begin;
    FloatVec sum = hn::Zero(d);
    ForVectors(size, [&](int64_t j, int64_t n) {
      const int64_t i = begin + j;
      FloatVec e = hn::Exp(d, hn::Sub(LoadUpTo(x + i, n), o));
      if (out != nullptr) StoreUpTo(e, n, out + i);
      if (n < lanes) e = hn::IfThenElseZero(hn::FirstN(d, n), e);
      sum = hn::Add(sum, e);
    });
    total += Sum(sum);
  }
  return static_cast<float>(total);
}

int64_t FindAtLeastT(const float* x, float bound, int64_t count, int32_t* out, int64_t room) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const FloatVec b = hn::Set(d, bound);
  int64_t found = 0;
  const auto test = [&](int64_t i) {
    if (x[i] >= bound) {
      if (found < room) out[found] = static_cast<int32_t>(i);
      ++found;
    }
  };
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    if (hn::AllFalse(d, hn::Ge(hn::LoadU(d, x + i), b))) continue;
    for (int64_t j = i; j < i + lanes; ++j) test(j);
  }
  for (; i < count; ++i) test(i);
  return found;
}

}  // namespace HWY_NAMESPACE
}  // namespace switchyard::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::kernels {

HWY_EXPORT(RmsNormT);
HWY_EXPORT(RmsNormAddT);
HWY_EXPORT(ActivateT);
HWY_EXPORT(AddScaledT);
HWY_EXPORT(ScaleT);
HWY_EXPORT(SoftCapT);
HWY_EXPORT(LargestT);
HWY_EXPORT(SumExpT);
HWY_EXPORT(FindAtLeastT);

void RmsNorm(const float* x, const float* weight, float eps, int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(RmsNormT)(x, weight, eps, count, out);
}
void RmsNormAdd(const float* x, const float* weight, float eps, int64_t count, float* y) {
  HWY_DYNAMIC_DISPATCH(RmsNormAddT)(x, weight, eps, count, y);
}
void Activate(Activation activation, float* gate, const float* up, int64_t count) {
  HWY_DYNAMIC_DISPATCH(ActivateT)(activation, gate, up, count);
}
void AddScaled(const float* x, float weight, int64_t count, float* y) {
  HWY_DYNAMIC_DISPATCH(AddScaledT)(x, weight, count, y);
}
void Scale(float factor, int64_t count, float* x) {
  HWY_DYNAMIC_DISPATCH(ScaleT)(factor, count, x);
}
void SoftCap(float cap, int64_t count, float* x) { HWY_DYNAMIC_DISPATCH(SoftCapT)(cap, count, x); }
float Largest(const float* x, int64_t count) { return HWY_DYNAMIC_DISPATCH(LargestT)(x, count); }
float SumExp(const float* x, float offset, int64_t count, float* out) {
  return HWY_DYNAMIC_DISPATCH(SumExpT)(x, offset, count, out);
}
int64_t FindAtLeast(const float* x, float bound, int64_t count, int32_t* out, int64_t room) {
  return HWY_DYNAMIC_DISPATCH(FindAtLeastT)(x, bound, count, out, room);
}

}  // namespace switchyard::kernels
#endif  // HWY_ONCE
