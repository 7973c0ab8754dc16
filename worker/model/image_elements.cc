#include "worker/model/image_elements.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/io/packed_weights.h"
#include "worker/model/widen.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kTileBytes = uint64_t{1} << 20;

absl::Status Bad(const ImageSource& source, const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", QuotedName(source.tensor), " ", what));
}

class ElementFiller {
 public:
  ElementFiller(const Checkpoint& checkpoint, const ImageSource& source, TensorType type)
      : checkpoint_(checkpoint),
        source_(source),
        type_(type),
        bytes_(static_cast<uint64_t>(TensorTypeBits(type_)) / 8) {}

  absl::Status Fill(uint64_t begin, uint64_t end, std::byte* to) const {
    float* floats = reinterpret_cast<float*>(to);
    switch (source_.transform) {
      case Transform::kCopy:
        return Read(begin, end, to);
      case Transform::kCopyF8:
        return CopyF8(begin, end, to);
      case Transform::kConvert:
        return Convert(begin, end, 0.0f, floats);
      case Transform::kConvertPlusOne:
        return Convert(begin, end, 1.0f, floats);
      case Transform::kScalesToF32:
        RETURN_IF_ERROR(Convert(begin, end, 0.0f, floats));
        return CheckScales({floats, end - begin});
      case Transform::kBroadcastToF32:
        RETURN_IF_ERROR(Convert(0, 1, 0.0f, floats));
        std::fill(floats + 1, floats + (end - begin), floats[0]);
        return CheckScales({floats, 1});
      default:
        return absl::InternalError(absl::StrCat("image: tensor ", QuotedName(source_.tensor),
                                                " cannot be filled element by element"));
    }
  }

 private:
  absl::Status Read(uint64_t begin, uint64_t end, std::byte* to) const {
    return checkpoint_.Read(source_.tensor, begin * bytes_, {to, (end - begin) * bytes_});
  }

  absl::Status CopyF8(uint64_t begin, uint64_t end, std::byte* to) const {
    RETURN_IF_ERROR(Read(begin, end, to));
    return AllF8Numbers({to, end - begin}) ? absl::OkStatus()
                                           : Bad(source_, "has a weight that is no number");
  }

  absl::Status CheckScales(std::span<const float> scales) const {
    const bool finite =
        std::all_of(scales.begin(), scales.end(), [](float scale) { return std::isfinite(scale); });
    return finite ? absl::OkStatus() : Bad(source_, "has a scale that is not finite");
  }

  absl::Status Convert(uint64_t begin, uint64_t end, float plus, float* to) const {
    const uint64_t most = kTileBytes / bytes_;
    std::vector<std::byte> tile(std::min(end - begin, most) * bytes_);
    for (uint64_t at = begin; at < end;) {
      const uint64_t count = std::min(end - at, most);
      RETURN_IF_ERROR(Read(at, at + count, tile.data()));
      for (uint64_t i = 0; i < count; ++i) *to++ = Widen(tile.data(), type_, i) + plus;
      at += count;
    }
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  const ImageSource& source_;
  const TensorType type_;
  const uint64_t bytes_;  // an element, in the checkpoint
};

}  // namespace

bool IsElementwise(Transform transform) {
  switch (transform) {
    case Transform::kCopy:
    case Transform::kConvert:
    case Transform::kConvertPlusOne:
    case Transform::kCopyF8:
    case Transform::kScalesToF32:
    case Transform::kBroadcastToF32:
      return true;
    default:
      return false;
  }
}

uint64_t ElementBytes(const ImageTensor& tensor) {
  return static_cast<uint64_t>(kernels::DTypeBytes(tensor.dtype, 1));
}

absl::Status FillElements(const Checkpoint& checkpoint, const ImageSource& source, uint64_t begin,
                          uint64_t end, std::byte* to) {
  const TensorInfo* info = checkpoint.Find(source.tensor);
  if (info == nullptr) {
    return absl::InternalError(absl::StrCat("image: no tensor ", QuotedName(source.tensor)));
  }
  return ElementFiller(checkpoint, source, info->type).Fill(begin, end, to);
}

absl::Status InCheckpoint(const Checkpoint& checkpoint, const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return status;
  return absl::InvalidArgumentError(absl::StrCat(checkpoint.dir(), ": ", status.message()));
}

}  // namespace switchyard::worker
