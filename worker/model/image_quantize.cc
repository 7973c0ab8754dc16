#include "worker/model/image_quantize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/model/widen.h"

namespace switchyard::worker {
namespace {

using kernels::DType;

constexpr uint64_t kJobWeights = uint64_t{2} << 20;

bool Transposes(Transform transform) {
  return transform == Transform::kTranspose || transform == Transform::kTransposeDeinterleave;
}

uint64_t RowBytes(const ImageTensor& tensor) {
  return static_cast<uint64_t>(kernels::DTypeBytes(tensor.dtype, tensor.k));
}

class RowQuantizer {
 public:
  RowQuantizer(const Checkpoint& checkpoint, const ImageTensor& tensor, const ImageTensor& scales,
               const ImageSource& source, std::span<std::byte> image)
      : checkpoint_(checkpoint),
        tensor_(tensor),
        source_(source),
        type_(checkpoint.Find(source.tensor)->type),
        k_(static_cast<uint64_t>(tensor.k)),
        element_(static_cast<uint64_t>(TensorTypeBits(type_)) / 8),
        numbers_(image.data() + tensor.offset),
        scales_(image.data() + scales.offset),
        row_(k_) {}

  // Rows [begin, end) of the source.
  absl::Status Rows(uint64_t begin, uint64_t end) {
    std::vector<std::byte> tile((end - begin) * k_ * element_);
    RETURN_IF_ERROR(checkpoint_.Read(source_.tensor, begin * k_ * element_, tile));
    const uint64_t first = source_.offset / RowBytes(tensor_);
    for (uint64_t r = begin; r < end; ++r) {
      const uint64_t at = (r - begin) * k_;
      for (uint64_t i = 0; i < k_; ++i) row_[i] = Widen(tile.data(), type_, at + i);
      RETURN_IF_ERROR(Quantize(first + r));
    }
    return absl::OkStatus();
  }

  // One expert, [k][n] in the source.
  absl::Status Expert(uint64_t expert) {
    const uint64_t n = static_cast<uint64_t>(tensor_.n);
    const bool deinterleave = source_.transform == Transform::kTransposeDeinterleave;
    std::vector<std::byte> matrix(k_ * n * element_);
    RETURN_IF_ERROR(checkpoint_.Read(source_.tensor, expert * k_ * n * element_, matrix));
    for (uint64_t j = 0; j < n; ++j) {
      for (uint64_t i = 0; i < k_; ++i) row_[i] = Widen(matrix.data(), type_, i * n + j);
      RETURN_IF_ERROR(Quantize(expert * n + (deinterleave ? Deinterleaved(j, n) : j)));
    }
    return absl::OkStatus();
  }

  const QuantizationError& error() const { return error_; }

 private:
  // row_ becomes row `at` of the matrix.
  absl::Status Quantize(uint64_t at) {
    std::byte* numbers = numbers_ + at * RowBytes(tensor_);
    if (tensor_.dtype == DType::kF8E4M3) {
      error_ += QuantizeF8(row_, reinterpret_cast<uint8_t*>(numbers),
                           reinterpret_cast<float*>(scales_) + at);
    } else {
      const uint64_t group = static_cast<uint64_t>(tensor_.group), groups = k_ / group;
      uint16_t* scales = reinterpret_cast<uint16_t*>(scales_) + at * groups;
      for (uint64_t g = 0; g < groups; ++g) {
        error_ += QuantizeInt4(std::span(row_).subspan(g * group, group),
                               reinterpret_cast<uint32_t*>(numbers) + g * group / 8, scales + g);
      }
    }
    if (std::isfinite(error_.squared_weights)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", QuotedName(source_.tensor), " has a weight that is not finite"));
  }

  const Checkpoint& checkpoint_;
  const ImageTensor& tensor_;
  const ImageSource& source_;
  const TensorType type_;
  const uint64_t k_, element_;
  std::byte* numbers_;
  std::byte* scales_;
  std::vector<float> row_;
  QuantizationError error_;
};

}  // namespace

QuantizeWork QuantizeWorkOf(const ImageTensor& tensor, const ImageSource& source) {
  const uint64_t row = RowBytes(tensor);
  if (Transposes(source.transform)) {
    return {static_cast<uint64_t>(tensor.batch), 1, static_cast<uint64_t>(tensor.n) * row};
  }
  return {source.bytes / row, std::max<uint64_t>(1, kJobWeights / static_cast<uint64_t>(tensor.k)),
          row};
}

absl::StatusOr<QuantizationError> FillQuantized(const Checkpoint& checkpoint,
                                                const ImageTensor& tensor,
                                                const ImageTensor& scales,
                                                const ImageSource& source, uint64_t begin,
                                                uint64_t end, std::span<std::byte> image) {
  RowQuantizer quantizer(checkpoint, tensor, scales, source, image);
  if (!Transposes(source.transform)) {
    RETURN_IF_ERROR(quantizer.Rows(begin, end));
  } else {
    for (uint64_t expert = begin; expert < end; ++expert) {
      RETURN_IF_ERROR(quantizer.Expert(expert));
    }
  }
  return quantizer.error();
}

}  // namespace switchyard::worker
