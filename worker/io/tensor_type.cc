#include "worker/io/tensor_type.h"

namespace switchyard::worker {
namespace {

struct Row {
  TensorType type;
  const char* name;
  int bits;
};

constexpr Row kRows[] = {
    {TensorType::kF64, "F64", 64},       {TensorType::kF32, "F32", 32},
    {TensorType::kF16, "F16", 16},       {TensorType::kBF16, "BF16", 16},
    {TensorType::kF8E4M3, "F8_E4M3", 8}, {TensorType::kF8E5M2, "F8_E5M2", 8},
    {TensorType::kF8E8M0, "F8_E8M0", 8}, {TensorType::kF4, "F4", 4},
    {TensorType::kI64, "I64", 64},       {TensorType::kI32, "I32", 32},
    {TensorType::kI16, "I16", 16},       {TensorType::kI8, "I8", 8},
    {TensorType::kU64, "U64", 64},       {TensorType::kU32, "U32", 32},
    {TensorType::kU16, "U16", 16},       {TensorType::kU8, "U8", 8},
    {TensorType::kBool, "BOOL", 8},
};

const Row& RowOf(TensorType type) { return kRows[static_cast<size_t>(type)]; }

}  // namespace

const char* TensorTypeName(TensorType type) { return RowOf(type).name; }
int TensorTypeBits(TensorType type) { return RowOf(type).bits; }

std::optional<TensorType> TensorTypeOf(const std::string& name) {
  for (const Row& row : kRows) {
    if (name == row.name) return row.type;
  }
  return std::nullopt;
}

}  // namespace switchyard::worker
