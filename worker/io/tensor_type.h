#pragma once

// Element types that a safetensors file may name. A header parses with any of them; what the image
// can be made of is the planner's business.

#include <cstdint>
#include <optional>
#include <string>

namespace switchyard::worker {

enum class TensorType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF4,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
};

// As the file spells it: "BF16".
const char* TensorTypeName(TensorType type);
std::optional<TensorType> TensorTypeOf(const std::string& name);
// Bits of one element; elements of less than a byte are packed.
int TensorTypeBits(TensorType type);

}  // namespace switchyard::worker
