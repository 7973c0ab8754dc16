#include "worker/model/image_matrix.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "worker/model/image_elements.h"

namespace switchyard::worker {
namespace {

using kernels::DType;

constexpr int64_t kBlock = 128;

bool IsPlain(DType type) {
  return type == DType::kF32 || type == DType::kBF16 || type == DType::kF16;
}

std::string Module(const SlotPart& part) { return QuotedName(part.tensor); }

absl::Status CheckAlike(const ImageSlot& slot, std::span<const StoredMatrix> parts) {
  const StoredMatrix& first = parts.front();
  for (size_t i = 1; i < parts.size(); ++i) {
    const StoredMatrix& part = parts[i];
    const bool alike = IsPlain(part.dtype)
                           ? IsPlain(first.dtype)
                           : part.dtype == first.dtype && part.group == first.group &&
                                 part.zeros.tensor.empty() == first.zeros.tensor.empty();
    if (alike) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(Module(slot.parts[0]), " is ", WeightFormatName(first.format), " and ",
                     Module(slot.parts[i]), " is ", WeightFormatName(part.format),
                     ": they are parts of one matrix here, and must be stored alike"));
  }
  return absl::OkStatus();
}

// A block of scales must not reach over two parts.
absl::Status CheckBlocks(const ImageSlot& slot, std::span<const StoredMatrix> parts) {
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (row % kBlock != 0) {
      return absl::UnimplementedError(
          absl::StrCat(Module(slot.parts[i]), " starts at row ", row,
                       " of the matrix that it is a part of, which is no multiple of ", kBlock,
                       ": scales of blocks are not supported there"));
    }
    row = (row + parts[i].n) % slot.n;  // the next expert starts anew
  }
  return absl::OkStatus();
}

const PieceSource& SourceOf(const StoredMatrix& part, Piece piece) {
  return piece == Piece::kData ? part.data : piece == Piece::kScales ? part.scales : part.zeros;
}

Transform Resolved(const ImageSlot& slot, const StoredMatrix& part, const ImageTensor& piece) {
  if (piece.piece != Piece::kData || !IsPlain(part.dtype)) {
    return SourceOf(part, piece.piece).transform;
  }
  if (slot.transform != Transform::kCopy || piece.quantize) return slot.transform;
  return part.dtype == piece.dtype ? Transform::kCopy : Transform::kConvert;
}

}  // namespace

absl::StatusOr<MatrixForm> CommonForm(const ImageSlot& slot, std::span<const StoredMatrix> parts,
                                      Quantize quantize) {
  if (absl::Status alike = CheckAlike(slot, parts); !alike.ok()) return alike;
  MatrixForm form{.dtype = parts.front().dtype,
                  .group = parts.front().group,
                  .zeros = !parts.front().zeros.tensor.empty()};
  if (form.dtype == DType::kF8E4M3 && form.group != 0) {
    if (absl::Status blocks = CheckBlocks(slot, parts); !blocks.ok()) return blocks;
  }
  if (!IsPlain(form.dtype)) return form;
  for (const StoredMatrix& part : parts) {
    if (part.dtype != form.dtype) form.dtype = DType::kF32;  // it holds them without loss
  }
  if (!IsProjection(slot.role) || quantize == Quantize::kAsStored) return form;
  const int32_t group = Int4Group(slot.k);
  if (quantize == Quantize::kInt4 && group == 0) return form;
  form.dtype = quantize == Quantize::kInt4 ? DType::kInt4 : DType::kF8E4M3;
  form.group = quantize == Quantize::kInt4 ? group : 0;
  form.quantize = true;
  return form;
}

std::vector<ImageTensor> MatrixPieces(const ImageSlot& slot, const MatrixForm& form) {
  const ImageTensor matrix{.role = slot.role,
                           .layer = slot.layer,
                           .dtype = form.dtype,
                           .group = form.group,
                           .batch = slot.batch,
                           .n = slot.n,
                           .k = slot.k,
                           .quantize = form.quantize,
                           .sources = {}};
  std::vector<ImageTensor> pieces = {matrix};
  if (IsPlain(form.dtype)) return pieces;
  ImageTensor scales = matrix;
  scales.piece = Piece::kScales;
  scales.quantize = false;
  if (form.dtype == DType::kF8E4M3) {
    scales.dtype = DType::kF32;
    scales.n = form.group == 0 ? 1 : CeilDiv(slot.n, kBlock);
    scales.k = form.group == 0 ? slot.n : CeilDiv(slot.k, kBlock);
  } else {
    scales.dtype = form.dtype == DType::kInt4 ? DType::kF16 : DType::kMxfp4;
    scales.k = slot.k / form.group;
  }
  pieces.push_back(scales);
  if (!form.zeros) return pieces;
  ImageTensor zeros = scales;
  zeros.piece = Piece::kZeros;
  zeros.dtype = DType::kInt4;
  pieces.push_back(zeros);
  return pieces;
}

uint64_t PieceBytes(Piece piece, const MatrixForm& form, int64_t rows, int64_t k) {
  if (piece == Piece::kData) {
    return static_cast<uint64_t>(rows) * static_cast<uint64_t>(kernels::DTypeBytes(form.dtype, k));
  }
  if (form.dtype == DType::kF8E4M3) {
    const int64_t scales = form.group == 0 ? rows : CeilDiv(rows, kBlock) * CeilDiv(k, kBlock);
    return 4 * static_cast<uint64_t>(scales);
  }
  const bool halves = piece == Piece::kScales && form.dtype == DType::kInt4;
  return static_cast<uint64_t>(rows * (k / form.group)) * (halves ? 2 : 1);
}

bool AddMatrixSources(const ImageSlot& slot, std::span<const StoredMatrix> parts,
                      const MatrixForm& form, std::span<ImageTensor> pieces) {
  bool work = false;
  for (ImageTensor& piece : pieces) {
    if (form.quantize && piece.piece == Piece::kScales) continue;  // comes with the numbers
    uint64_t offset = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const uint64_t bytes = PieceBytes(piece.piece, form, parts[i].n, slot.k);
      const Transform transform = Resolved(slot, parts[i], piece);
      piece.sources.push_back({SourceOf(parts[i], piece.piece).tensor, transform, offset, bytes});
      offset += bytes;
      work |= !IsElementwise(transform) || piece.quantize;
    }
  }
  return work;
}

}  // namespace switchyard::worker
