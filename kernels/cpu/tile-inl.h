// The inner loop of every dot product: a register tile of `MT` activation rows by `NT` weight rows.
// Compiled once per Highway target; include after foreach_target.h.
//
// The rule that makes rows independent of their batch: output (m, n) has one accumulator vector
// whose lane l holds the sum over k = l (mod lanes), in rising order of k, by fused multiply-add;
// the lanes are then added by one fixed tree. The shape of the tile, the cut of K into panels and
// the number of threads only change what is computed when, never this sum.

#if defined(SWITCHYARD_KERNELS_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_KERNELS_CPU_TILE_INL_H_
#undef SWITCHYARD_KERNELS_CPU_TILE_INL_H_
#else
#define SWITCHYARD_KERNELS_CPU_TILE_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/element_types.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

// Rows of activations and of weights in the register tile. 32 registers hold 6 x 4 accumulators, 16
// hold 3 x 4.
#if HWY_TARGET == HWY_AVX2
inline constexpr int kTileRows = 3;
#else
inline constexpr int kTileRows = 6;
#endif
inline constexpr int kTileColumns = 4;

HWY_INLINE FloatVec LoadFloats(FloatTag d, const float* p) { return hn::LoadU(d, p); }

HWY_INLINE FloatVec LoadFloats(FloatTag d, const Bf16* p) {
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::Rebind<uint32_t, FloatTag> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

HWY_INLINE FloatVec LoadFloats(FloatTag d, const F16* p) {
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}

// The first `count` < lanes elements, then zeros; reads nothing beyond them.
template <class W>
HWY_NOINLINE FloatVec LoadSome(FloatTag d, const W* p, size_t count) {
  W padded[HWY_MAX_BYTES / sizeof(float)] = {};
  std::memcpy(padded, p, count * sizeof(W));
  return LoadFloats(d, padded);
}

#if HWY_TARGET != HWY_SCALAR
// Adds the upper half of the blocks to the lower half until one block of four is left.
template <class D, class V>
HWY_INLINE auto AddBlocks(D d, V v) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return AddBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
#endif

// out[i] = the sum of v[i]'s lanes, four at once: a third of the shuffles of four sums. The tree is
// the same for each of the four.
HWY_INLINE void SumFour(const FloatVec* v, float* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 4; ++i) out[i] = hn::GetLane(v[i]);
#else
  const FloatTag d;
  const hn::Repartition<uint64_t, FloatTag> d64;
  // Blocks of 0+2 of the first, of the second, 1+3 of the first, of the second.
  const FloatVec ab =
      hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
  const FloatVec cd =
      hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
  const auto ab64 = hn::BitCast(d64, ab), cd64 = hn::BitCast(d64, cd);
  const FloatVec blocks = hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, ab64, cd64)),
                                  hn::BitCast(d, hn::InterleaveUpper(d64, ab64, cd64)));
  const auto sums = AddBlocks(d, blocks);
  hn::StoreU(sums, hn::DFromV<decltype(sums)>(), out);
#endif
}

// The sum of v's lanes, by the same tree.
HWY_INLINE float Sum(FloatVec v) {
  const FloatVec four[4] = {v, v, v, v};
  float sums[4];
  SumFour(four, sums);
  return sums[0];
}

// acc[m * NT + n] += x[m][k] w[n][k] for k in [begin, end); `begin` a multiple of the lanes.
// `kPrefetch` bytes ahead, each weight row is fetched from memory: 0 for what is in a cache
// already.
template <int MT, int NT, int kPrefetch, class W>
HWY_INLINE void TileDot(const float* const* HWY_RESTRICT x, const W* const* HWY_RESTRICT w,
                        size_t begin, size_t end, FloatVec* HWY_RESTRICT acc) {
  const FloatTag d;
  const size_t lanes = hn::Lanes(d);
  FloatVec a[MT][NT];
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) a[m][n] = acc[m * NT + n];
  }
  const auto step = [&](size_t k) __attribute__((always_inline)) {
    FloatVec xv[MT];
#pragma GCC unroll 8
    for (int m = 0; m < MT; ++m) xv[m] = hn::LoadU(d, x[m] + k);
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) {
      const FloatVec wv = LoadFloats(d, w[n] + k);
#pragma GCC unroll 8
      for (int m = 0; m < MT; ++m) a[m][n] = hn::MulAdd(xv[m], wv, a[m][n]);
    }
  };
  size_t k = begin;
  constexpr size_t kLine = 64 / sizeof(W);  // elements in a cache line
  if (kPrefetch > 0 && lanes < kLine) {
    for (; k + kLine <= end; k += kLine) {
#pragma GCC unroll 8
      for (int n = 0; n < NT; ++n) {
        __builtin_prefetch(reinterpret_cast<const char*>(w[n] + k) + kPrefetch);
      }
      for (size_t i = 0; i < kLine; i += lanes) step(k + i);
    }
  }
  for (; k + lanes <= end; k += lanes) step(k);
  if (k < end) {
    const size_t count = end - k;
    FloatVec xv[MT];
#pragma GCC unroll 8
    for (int m = 0; m < MT; ++m) xv[m] = LoadSome(d, x[m] + k, count);
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) {
      const FloatVec wv = LoadSome(d, w[n] + k, count);
#pragma GCC unroll 8
      for (int m = 0; m < MT; ++m) a[m][n] = hn::MulAdd(xv[m], wv, a[m][n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < NT; ++n) acc[m * NT + n] = a[m][n];
  }
}

// Calls f with std::integral_constant<int, rows>, 1 <= rows <= kTileRows.
template <class F>
HWY_INLINE void WithTileRows(int rows, const F& f) {
  switch (rows) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
#if HWY_TARGET != HWY_AVX2
    case 4:
      return f(std::integral_constant<int, 4>());
    case 5:
      return f(std::integral_constant<int, 5>());
    default:
      return f(std::integral_constant<int, 6>());
#else
    default:
      return;
#endif
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace switchyard::kernels
HWY_AFTER_NAMESPACE();

#endif
