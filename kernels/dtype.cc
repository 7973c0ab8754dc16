#include "kernels/ops.h"

namespace switchyard::kernels {

int64_t DTypeBytes(DType type, int64_t count) {
  switch (type) {
    case DType::kF32:
      return count * 4;
    case DType::kBF16:
    case DType::kF16:
      return count * 2;
    case DType::kF8E4M3:
      return count;
    case DType::kInt4:
    case DType::kMxfp4:
      return (count + 1) / 2;
  }
  return 0;
}

const char* DTypeName(DType type) {
  switch (type) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kF8E4M3:
      return "f8_e4m3";
    case DType::kInt4:
      return "int4";
    case DType::kMxfp4:
      return "mxfp4";
  }
  return "unknown";
}

}  // namespace switchyard::kernels
