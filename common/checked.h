#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>

namespace switchyard {

// Arithmetic on numbers from outside: nullopt instead of overflow.
inline std::optional<uint64_t> CheckedAdd(uint64_t a, uint64_t b) {
  uint64_t r;
  return __builtin_add_overflow(a, b, &r) ? std::nullopt : std::optional<uint64_t>(r);
}
inline std::optional<uint64_t> CheckedMul(uint64_t a, uint64_t b) {
  uint64_t r;
  return __builtin_mul_overflow(a, b, &r) ? std::nullopt : std::optional<uint64_t>(r);
}
// Rounds up to a multiple of `unit` (unit > 0); the caller knows that it does not overflow.
constexpr uint64_t RoundUp(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit * unit; }
template <typename T>
constexpr T CeilDiv(T n, std::type_identity_t<T> unit) {
  return (n + unit - 1) / unit;
}

}  // namespace switchyard
