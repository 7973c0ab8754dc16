// Rows of a weight matrix, of any stored type, as float32. Compiled once per Highway target;
// include after foreach_target.h and tile-inl.h.
//
// Every `...Rows` has Convert(row, k0, count, out): columns [k0, k0 + count) of a row of the whole
// matrix (batch * n + n), k0 a multiple of 128. It writes whole vectors, zeros behind `count`.
//
// What a weight is worth is computed the same way everywhere: the stored number, which float32
// holds exactly, times its scale, rounded once.

#if defined(SWITCHYARD_KERNELS_CPU_DEQUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_KERNELS_CPU_DEQUANTIZE_INL_H_
#undef SWITCHYARD_KERNELS_CPU_DEQUANTIZE_INL_H_
#else
#define SWITCHYARD_KERNELS_CPU_DEQUANTIZE_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/cpu/element_types.h"
#include "kernels/ops.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels {
namespace HWY_NAMESPACE {

using BitsTag = hn::Rebind<uint32_t, FloatTag>;
using BitsVec = hn::Vec<BitsTag>;

// Bytes that weights are fetched ahead of their conversion.
inline constexpr int64_t kFetchAhead = 1024;

template <class W>
struct PlainRows {
  explicit PlainRows(const Matrix& w) : data(static_cast<const W*>(w.data)), k(w.k) {}
  const W* data;
  int64_t k;

  HWY_INLINE void Convert(int64_t row, int64_t k0, int64_t count, float* HWY_RESTRICT out) const {
    const FloatTag d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const W* from = data + row * k + k0;
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) hn::StoreU(LoadFloats(d, from + i), d, out + i);
    if (i < count) hn::StoreU(LoadSome(d, from + i, count - i), d, out + i);
  }
};

struct F8 {
  uint8_t bits;
};

// An e4m3 number is the f16 number of the same bits, moved up by seven, times 2^8; subnormal ones
// too. (Not the two that are no number: a checkpoint that has them is refused.)
HWY_INLINE FloatVec LoadFloats(FloatTag d, const F8* p) {
  const hn::Rebind<uint8_t, FloatTag> d8;
  const hn::Rebind<uint16_t, FloatTag> d16;
  const hn::Rebind<hwy::float16_t, FloatTag> half;
  const auto wide = hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(p)));
  const auto size = hn::ShiftLeft<7>(hn::And(wide, hn::Set(d16, uint16_t{0x7f})));
  const auto sign = hn::ShiftLeft<8>(hn::And(wide, hn::Set(d16, uint16_t{0x80})));
  return hn::Mul(hn::PromoteTo(d, hn::BitCast(half, hn::Or(size, sign))), hn::Set(d, 256.0f));
}

struct F8Rows {
  explicit F8Rows(const Matrix& w)
      : data(static_cast<const F8*>(w.data)),
        scales(static_cast<const float*>(w.scales)),
        n(w.n),
        k(w.k),
        blocks(w.group != 0) {}
  const F8* data;
  const float* scales;
  int64_t n, k;
  bool blocks;

  HWY_INLINE void Convert(int64_t row, int64_t k0, int64_t count, float* HWY_RESTRICT out) const {
    const F8* from = data + row * k + k0;
    if (!blocks) return Scaled(from, count, scales[row], out);
    const int64_t strip = row / n * ((n + 127) / 128) + row % n / 128;
    const float* scale = scales + strip * ((k + 127) / 128) + k0 / 128;
    for (int64_t i = 0; i < count; i += 128) {
      Scaled(from + i, std::min<int64_t>(128, count - i), *scale++, out + i);
    }
  }

  static HWY_INLINE void Scaled(const F8* from, int64_t count, float scale,
                                float* HWY_RESTRICT out) {
    const FloatTag d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const FloatVec s = hn::Set(d, scale);
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      if (i % 64 == 0) __builtin_prefetch(from + i + kFetchAhead);
      hn::StoreU(hn::Mul(LoadFloats(d, from + i), s), d, out + i);
    }
    if (i < count) hn::StoreU(hn::Mul(LoadSome(d, from + i, count - i), s), d, out + i);
  }
};

// The nibbles of columns [k, k + lanes) in their lanes, above them what else the word holds.
// `words`: those of the row.
HWY_INLINE BitsVec Nibbles(BitsTag d, const uint32_t* words, int64_t k) {
  // By column of a word: where its nibble begins.
  alignas(64) static constexpr uint32_t kShifts[16] = {0, 16, 4, 20, 8, 24, 12, 28,
                                                       0, 16, 4, 20, 8, 24, 12, 28};
  const BitsVec shifts = hn::LoadU(d, kShifts + k % 8);
  BitsVec word = hn::Set(d, words[k / 8]);
#if HWY_TARGET != HWY_SCALAR
  if (hn::Lanes(d) > 8) word = hn::IfThenElse(hn::FirstN(d, 8), word, hn::Set(d, words[k / 8 + 1]));
#endif
  return hn::Shr(word, shifts);
}

// f16, by the compiler's own conversion where it has one.
HWY_INLINE float HalfToFloat(const uint16_t* half) {
  const hn::CappedTag<float, 1> d;
  const hn::Rebind<hwy::float16_t, decltype(d)> d16;
  return hn::GetLane(
      hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(half))));
}

struct Int4Rows {
  explicit Int4Rows(const Matrix& w)
      : data(static_cast<const uint32_t*>(w.data)),
        scales(static_cast<const uint16_t*>(w.scales)),
        zeros(static_cast<const uint8_t*>(w.zeros)),
        k(w.k),
        group(w.group) {}
  const uint32_t* data;
  const uint16_t* scales;
  const uint8_t* zeros;
  int64_t k, group;

  HWY_INLINE void Convert(int64_t row, int64_t k0, int64_t count, float* HWY_RESTRICT out) const {
    const FloatTag d;
    const BitsTag bits;
    const hn::RebindToSigned<BitsTag> integers;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const uint32_t* words = data + row * (k / 8);
    const BitsVec low = hn::Set(bits, 15u);
    for (int64_t at = k0; at < k0 + count;) {
      const int64_t g = row * (k / group) + at / group;
      const int64_t end = std::min(k0 + count, (at / group + 1) * group);
      const float scale = HalfToFloat(scales + g);
      // (q - zero) * scale, exactly: both products have at most 15 bits.
      const FloatVec s = hn::Set(d, scale);
      const FloatVec offset = hn::Set(d, scale * (zeros != nullptr ? zeros[g] : 8.0f));
      __builtin_prefetch(reinterpret_cast<const char*>(words + at / 8) + kFetchAhead);
      for (; at < end; at += lanes) {
        const auto q = hn::BitCast(integers, hn::And(Nibbles(bits, words, at), low));
        hn::StoreU(hn::MulSub(hn::ConvertTo(d, q), s, offset), d, out + at - k0);
      }
    }
  }
};

struct Mxfp4Rows {
  explicit Mxfp4Rows(const Matrix& w)
      : data(static_cast<const uint32_t*>(w.data)),
        scales(static_cast<const uint8_t*>(w.scales)),
        k(w.k) {}
  const uint32_t* data;
  const uint8_t* scales;
  int64_t k;

  HWY_INLINE void Convert(int64_t row, int64_t k0, int64_t count, float* HWY_RESTRICT out) const {
    const FloatTag d;
    const BitsTag bits;
    const hn::RebindToSigned<BitsTag> integers;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    const uint32_t* words = data + row * (k / 8);
    const uint8_t* scale = scales + row * (k / 32) + k0 / 32;
    // Twice the sizes 0, 0.5, 1, 1.5, 2, 3, 4, 6, a nibble each.
    const BitsVec sizes = hn::Set(bits, 0xC8643210u);
    const BitsVec low = hn::Set(bits, 15u), size_bits = hn::Set(bits, 28u);
    const BitsVec sign_bit = hn::Set(bits, 8u);
    for (int64_t i = 0; i < count; i += 32) {
      const FloatVec s = hn::Set(d, HalfOfPower(*scale++));
      __builtin_prefetch(reinterpret_cast<const char*>(words + (k0 + i) / 8) + kFetchAhead);
      for (int64_t j = i; j < i + 32; j += lanes) {
        const BitsVec nibble = Nibbles(bits, words, k0 + j);
        const BitsVec size =
            hn::And(hn::Shr(sizes, hn::And(hn::ShiftLeft<2>(nibble), size_bits)), low);
        const BitsVec sign = hn::ShiftLeft<28>(hn::And(nibble, sign_bit));
        const FloatVec value = hn::Mul(hn::ConvertTo(d, hn::BitCast(integers, size)), s);
        hn::StoreU(hn::BitCast(d, hn::Or(hn::BitCast(bits, value), sign)), d, out + j);
      }
    }
  }

  // 2^(scale - 128), subnormal where it must be.
  static HWY_INLINE float HalfOfPower(uint8_t scale) {
    const uint32_t exponent = scale;
    const uint32_t bits = exponent >= 2   ? (exponent - 1) << 23
                          : exponent == 1 ? 1u << 22
                                          : 1u << 21;
    return std::bit_cast<float>(bits);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace switchyard::kernels
HWY_AFTER_NAMESPACE();

#endif
