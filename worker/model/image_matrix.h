#pragma once

// What the tensors of the image look like that one matrix is made of: its numbers, and where it is
// quantized, scales and zero points.

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/image.h"
#include "worker/model/image_slots.h"
#include "worker/model/stored_matrix.h"

namespace switchyard::worker {

struct MatrixForm {
  kernels::DType dtype = kernels::DType::kBF16;
  int32_t group = 0;
  bool zeros = false;
  bool quantize = false;  // while filling
};

// The form that all parts of a matrix share. Plain parts of several types become float32; parts
// that differ otherwise are refused.
absl::StatusOr<MatrixForm> CommonForm(const ImageSlot& slot, std::span<const StoredMatrix> parts,
                                      Quantize quantize);

// Numbers, then scales, then zero points, without offsets and sources.
std::vector<ImageTensor> MatrixPieces(const ImageSlot& slot, const MatrixForm& form);

// Bytes of `rows` rows of a piece of a matrix with rows of `k`; for scales of blocks, rows is a
// multiple of 128 or a matrix's last.
uint64_t PieceBytes(Piece piece, const MatrixForm& form, int64_t rows, int64_t k);

// Where each piece comes from. True if that takes work (ImageLayout).
bool AddMatrixSources(const ImageSlot& slot, std::span<const StoredMatrix> parts,
                      const MatrixForm& form, std::span<ImageTensor> pieces);

}  // namespace switchyard::worker
