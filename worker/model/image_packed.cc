#include "worker/model/image_packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/status_macros.h"
#include "worker/io/packed_weights.h"
#include "worker/model/widen.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kJobBytes = uint64_t{8} << 20;
constexpr uint64_t kTileBytes = uint64_t{1} << 20;
constexpr uint64_t kMostTileWords = 64;

bool IsRows(Transform transform) {
  switch (transform) {
    case Transform::kNibbles:
    case Transform::kNibblesDeinterleave:
    case Transform::kScaleExponents:
    case Transform::kScaleExponentsDeinterleave:
      return true;
    default:
      return false;
  }
}

bool Deinterleaves(Transform transform) {
  return transform == Transform::kNibblesDeinterleave ||
         transform == Transform::kScaleExponentsDeinterleave;
}

bool IsNumbers(const ImageTensor& tensor) { return tensor.piece == Piece::kData; }

// Of the piece, and for IsRows of the source too.
uint64_t RowBytes(const ImageTensor& tensor) {
  return IsNumbers(tensor) ? static_cast<uint64_t>(tensor.k) / 2 : static_cast<uint64_t>(tensor.k);
}

// Rows of the source's part of a matrix of 4-bit numbers.
uint64_t PartRows(const ImageTensor& tensor, const ImageSource& source) {
  return source.bytes / RowBytes(tensor);
}

absl::Status Bad(const ImageSource& source, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", QuotedName(source.tensor), " ", what));
}

class PackedFiller {
 public:
  PackedFiller(const Checkpoint& checkpoint, const ImageTensor& tensor, const ImageSource& source,
               std::byte* to)
      : checkpoint_(checkpoint), tensor_(tensor), source_(source), to_(to) {}

  absl::Status Fill(uint64_t begin, uint64_t end) {
    const int64_t columns = tensor_.k;  // groups of a row, for scales and zero points
    const int64_t zero_rows = static_cast<int64_t>(source_.bytes) / columns;
    uint8_t* zeros = reinterpret_cast<uint8_t*>(to_);
    switch (source_.transform) {
      case Transform::kNibbles:
      case Transform::kNibblesDeinterleave:
      case Transform::kScaleExponents:
      case Transform::kScaleExponentsDeinterleave:
        return Rows(begin, end);
      case Transform::kAwqWeights:
      case Transform::kGptqWeights:
        return Tile(begin, end);
      case Transform::kScalesToF16:
        return ScalesToF16(/*transposed=*/false);
      case Transform::kTransposedScalesToF16:
        return ScalesToF16(/*transposed=*/true);
      case Transform::kAwqZeros: {
        ASSIGN_OR_RETURN(const auto words, Words());
        AwqZeros(words.data(), columns, zero_rows, zeros);
        return absl::OkStatus();
      }
      case Transform::kGptqZeros:
      case Transform::kGptqZerosPlusOne: {
        ASSIGN_OR_RETURN(const auto words, Words());
        GptqZeros(words.data(), columns, zero_rows,
                  source_.transform == Transform::kGptqZeros ? 0 : 1, zeros);
        return absl::OkStatus();
      }
      case Transform::kPackedZeros: {
        ASSIGN_OR_RETURN(const auto words, Words());
        PackedZeros(words.data(), columns, zero_rows, zeros);
        return absl::OkStatus();
      }
      default:
        return absl::InternalError("image: not a packed transform");
    }
  }

 private:
  // The whole source; its size was checked against config.json when the image was planned.
  absl::StatusOr<std::vector<uint32_t>> Words() const {
    std::vector<uint32_t> words(checkpoint_.Find(source_.tensor)->bytes / 4);
    RETURN_IF_ERROR(checkpoint_.Read(source_.tensor, 0, std::as_writable_bytes(std::span(words))));
    return words;
  }

  // Rows that stay rows.
  absl::Status Rows(uint64_t begin, uint64_t end) {
    const uint64_t row = RowBytes(tensor_), n = static_cast<uint64_t>(tensor_.n);
    std::vector<std::byte> tile;
    std::span<std::byte> rows(to_ + begin * row, (end - begin) * row);
    const bool moves = Deinterleaves(source_.transform);
    if (moves) {
      tile.resize(rows.size());
      rows = tile;
    }
    RETURN_IF_ERROR(checkpoint_.Read(source_.tensor, begin * row, rows));
    if (IsNumbers(tensor_)) {
      Reorder(rows);
    } else if (std::find(rows.begin(), rows.end(), std::byte{0xff}) != rows.end()) {
      return Bad(source_, "has a scale that is no number");
    }
    if (!moves) return absl::OkStatus();
    for (uint64_t r = begin; r < end; ++r) {
      const uint64_t at = r / n * n + Deinterleaved(r % n, n);
      std::memcpy(to_ + at * row, tile.data() + (r - begin) * row, row);
    }
    return absl::OkStatus();
  }

  static void Reorder(std::span<std::byte> words) {
    for (size_t i = 0; i + 4 <= words.size(); i += 4) {
      uint32_t word;
      std::memcpy(&word, words.data() + i, 4);
      word = ToImageOrder(word);
      std::memcpy(words.data() + i, &word, 4);
    }
  }

  // Input features that become columns.
  absl::Status Tile(uint64_t begin, uint64_t end) {
    const bool awq = source_.transform == Transform::kAwqWeights;
    const uint64_t n = PartRows(tensor_, source_), width = awq ? n / 8 : n;
    std::vector<uint32_t> tile((end - begin) * width);
    RETURN_IF_ERROR(checkpoint_.Read(source_.tensor, begin * width * 4,
                                     std::as_writable_bytes(std::span(tile))));
    (awq ? AwqWeights : GptqWeights)(tile.data(), static_cast<int64_t>(end - begin),
                                     static_cast<int64_t>(begin), static_cast<int64_t>(n),
                                     tensor_.k, reinterpret_cast<uint32_t*>(to_));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<float>> Floats(uint64_t count) const {
    const TensorType type = checkpoint_.Find(source_.tensor)->type;
    std::vector<std::byte> bytes(count * static_cast<uint64_t>(TensorTypeBits(type)) / 8);
    RETURN_IF_ERROR(checkpoint_.Read(source_.tensor, 0, bytes));
    std::vector<float> floats(count);
    for (uint64_t i = 0; i < count; ++i) {
      floats[i] = Widen(bytes.data(), type, i);
      if (!std::isfinite(floats[i])) return Bad(source_, "has a scale that is not finite");
    }
    return floats;
  }

  absl::Status ScalesToF16(bool transposed) {
    const uint64_t groups = static_cast<uint64_t>(tensor_.k);
    const uint64_t n = source_.bytes / 2 / groups;
    ASSIGN_OR_RETURN(const std::vector<float> scales, Floats(n * groups));
    uint16_t* to = reinterpret_cast<uint16_t*>(to_);
    for (uint64_t row = 0; row < n; ++row) {
      for (uint64_t g = 0; g < groups; ++g) {
        const float scale = scales[transposed ? g * n + row : row * groups + g];
        const std::optional<uint16_t> half = ToF16(scale);
        if (!half) return Bad(source_, absl::StrCat("has a scale beyond f16: ", scale));
        *to++ = *half;
      }
    }
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  const ImageTensor& tensor_;
  const ImageSource& source_;
  std::byte* to_;
};

}  // namespace

bool IsPacked(Transform transform) { return transform >= Transform::kNibbles; }

PackedWork PackedWorkOf(const ImageTensor& tensor, const ImageSource& source) {
  const uint64_t k = static_cast<uint64_t>(tensor.k);
  if (IsRows(source.transform)) {
    return {PartRows(tensor, source), std::max<uint64_t>(1, kJobBytes / RowBytes(tensor))};
  }
  if (source.transform == Transform::kGptqWeights || source.transform == Transform::kAwqWeights) {
    // A word of the image is eight input features: one row of GPTQ's tensor, eight of AWQ's.
    const uint64_t words =
        std::clamp<uint64_t>(kTileBytes / (4 * PartRows(tensor, source)), 1, kMostTileWords);
    if (source.transform == Transform::kGptqWeights) return {k / 8, words};
    return {k, 8 * words};
  }
  return {};
}

uint64_t PackedBytesDone(const ImageTensor& tensor, const ImageSource& source, uint64_t end) {
  if (end == PackedWorkOf(tensor, source).units) return source.bytes;
  if (!IsRows(source.transform)) return 0;
  const uint64_t n = static_cast<uint64_t>(tensor.n);
  return (Deinterleaves(source.transform) ? end / n * n : end) * RowBytes(tensor);
}

absl::Status FillPacked(const Checkpoint& checkpoint, const ImageTensor& tensor,
                        const ImageSource& source, uint64_t begin, uint64_t end, std::byte* to) {
  return PackedFiller(checkpoint, tensor, source, to).Fill(begin, end);
}

}  // namespace switchyard::worker
