#include "worker/model/stored_matrix.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/checked.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

using kernels::DType;
using Shape = std::vector<int64_t>;

absl::Status Refuse(const std::string& what) { return absl::InvalidArgumentError(what); }

bool IsFloat(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kBF16 || type == TensorType::kF16;
}

// Rows, and what is in front of them, of a part whose shape may be transposed.
int64_t RowsOf(const ImageSlot& slot, const SlotPart& part) {
  if (part.shape.size() == 3) return slot.batch * slot.n;
  return part.shape.empty() ? 1 : part.shape[0];
}

// Experts in one tensor are [in][out]: of the quantized formats only MXFP4 has a layout for them.
absl::Status CheckExperts(WeightFormat format, const SlotPart& part) {
  if (format == WeightFormat::kPlain || format == WeightFormat::kMxfp4 || part.shape.size() != 3) {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      absl::StrCat("tensor ", QuotedName(part.tensor), ": ", WeightFormatName(format),
                   " of experts in one tensor is not supported; one tensor an expert is"));
}

// Columns of a scale in the 4-bit integer formats, of n rows of k weights.
absl::StatusOr<int32_t> Int4GroupOf(const QuantizationConfig& config, const std::string& base,
                                    int64_t n, int64_t k) {
  const int64_t group = config.group > 0 ? config.group : k;
  if (k % group != 0 || group % 32 != 0) {
    return Refuse(absl::StrCat("module ", QuotedName(base), ": rows of ", k,
                               " weights in groups of ", group,
                               "; groups must divide rows, and be multiples of 32"));
  }
  if (config.format != WeightFormat::kPacked && n % 8 != 0) {
    return Refuse(absl::StrCat("module ", QuotedName(base), ": ", n,
                               " rows are no multiple of 8, as ", WeightFormatName(config.format),
                               " needs them"));
  }
  return static_cast<int32_t>(group);
}

absl::Status CheckMxfp4Rows(const std::string& base, int64_t k) {
  if (k % 32 == 0) return absl::OkStatus();
  return Refuse(absl::StrCat("module ", QuotedName(base), ": rows of ", k,
                             " weights are no multiple of 32, as MXFP4 needs them"));
}

class Finder {
 public:
  Finder(const Checkpoint& checkpoint, const QuantizationConfig& config, const ImageSlot& slot,
         const SlotPart& part)
      : checkpoint_(checkpoint),
        config_(config),
        part_(part),
        base_(absl::StripSuffix(part.tensor, ".weight")),
        k_(slot.k) {
    matrix_.n = RowsOf(slot, part);
    batch_ = slot.batch;
    role_ = slot.role;
    interleaved_ = slot.transform == Transform::kTransposeDeinterleave;
  }

  absl::StatusOr<StoredMatrix> Find() {
    ASSIGN_OR_RETURN(const WeightFormat format, FormatThatIsThere());
    matrix_.format = format;
    if (format != WeightFormat::kPlain && config_.Keeps(base_)) {
      return Refuse(absl::StrCat("module ", QuotedName(base_), " is ", WeightFormatName(format),
                                 ", but config.json lists it among those that are not quantized"));
    }
    RETURN_IF_ERROR(CheckExperts(format, part_));
    RETURN_IF_ERROR(Read(format));
    return std::move(matrix_);
  }

 private:
  const TensorInfo* Has(const std::string& name) const { return checkpoint_.Find(name); }

  // By the tensors; where there are none, an error about those that should be.
  absl::StatusOr<WeightFormat> FormatThatIsThere() const {
    const TensorInfo* weight = Has(part_.tensor);
    if (weight != nullptr && weight->type != TensorType::kF8E4M3) return WeightFormat::kPlain;
    const WeightFormat said = config_.format;
    std::string found;
    if (weight != nullptr) {
      if (said == WeightFormat::kFp8 || said == WeightFormat::kFp8Blocks) return said;
      found = absl::StrCat(part_.tensor, " of type F8_E4M3");
    } else if (Has(base_ + ".qweight") != nullptr) {
      if (said == WeightFormat::kAwq || said == WeightFormat::kGptq) return said;
      found = base_ + ".qweight";
    } else if (Has(base_ + ".weight_packed") != nullptr) {
      if (said == WeightFormat::kPacked) return said;
      found = base_ + ".weight_packed";
    } else if (Has(base_ + "_blocks") != nullptr) {
      if (said == WeightFormat::kMxfp4) return said;
      found = base_ + "_blocks";
    } else {
      return Missing();
    }
    return Refuse(absl::StrCat("there is a tensor ", QuotedName(found),
                               ", but by config.json matrices are ", WeightFormatName(said)));
  }

  absl::Status Missing() const {
    std::string wanted = part_.tensor;
    const bool kept = !IsProjection(role_) || config_.Keeps(base_);
    if (!kept && (config_.format == WeightFormat::kAwq || config_.format == WeightFormat::kGptq)) {
      wanted = base_ + ".qweight";
    } else if (!kept && config_.format == WeightFormat::kPacked) {
      wanted = base_ + ".weight_packed";
    } else if (!kept && config_.format == WeightFormat::kMxfp4 && part_.shape.size() == 3) {
      wanted = base_ + "_blocks";
    }
    return Refuse(absl::StrCat("tensor ", QuotedName(wanted), " is missing (",
                               ShapeText(part_.shape), " by config.json)"));
  }

  absl::Status Read(WeightFormat format) {
    switch (format) {
      case WeightFormat::kPlain:
        return ReadPlain();
      case WeightFormat::kFp8:
        return ReadFp8();
      case WeightFormat::kFp8Blocks:
        return ReadFp8Blocks();
      case WeightFormat::kAwq:
      case WeightFormat::kGptq:
        return ReadTransposedInt4(format);
      case WeightFormat::kPacked:
        return ReadPacked();
      case WeightFormat::kMxfp4:
        return ReadMxfp4();
    }
    return absl::InternalError("unknown weight format");
  }

  absl::Status CheckShape(const TensorInfo& info, const Shape& shape) const {
    if (info.shape == shape) return absl::OkStatus();
    return Refuse(absl::StrCat("tensor ", QuotedName(info.name), " is ", ShapeText(info.shape),
                               ", but by config.json it must be ", ShapeText(shape)));
  }

  absl::StatusOr<const TensorInfo*> Need(const std::string& name) const {
    if (const TensorInfo* info = Has(name)) return info;
    return Refuse(absl::StrCat("tensor ", QuotedName(name), " is missing: ", QuotedName(base_),
                               " is ", WeightFormatName(matrix_.format)));
  }

  absl::StatusOr<std::string> Need(const std::string& name, const Shape& shape,
                                   TensorType type) const {
    ASSIGN_OR_RETURN(const TensorInfo* info, Need(name));
    RETURN_IF_ERROR(CheckShape(*info, shape));
    if (info->type != type) {
      return Refuse(absl::StrCat("tensor ", QuotedName(name), " is of type ",
                                 TensorTypeName(info->type), ", must be ", TensorTypeName(type)));
    }
    return name;
  }

  absl::Status CheckScaleType(const TensorInfo& info) const {
    if (IsFloat(info.type)) return absl::OkStatus();
    return Refuse(absl::StrCat("tensor ", QuotedName(info.name), " is of type ",
                               TensorTypeName(info.type), "; scales can be BF16, F16 or F32"));
  }

  absl::StatusOr<std::string> NeedScales(const std::string& name, const Shape& shape) const {
    ASSIGN_OR_RETURN(const TensorInfo* info, Need(name));
    RETURN_IF_ERROR(CheckShape(*info, shape));
    RETURN_IF_ERROR(CheckScaleType(*info));
    return name;
  }

  void Leave(const char* suffix) {
    if (Has(base_ + suffix) != nullptr) matrix_.unused.push_back(base_ + suffix);
  }

  absl::Status ReadPlain() {
    const TensorInfo* info = Has(part_.tensor);
    RETURN_IF_ERROR(CheckShape(*info, part_.shape));
    ASSIGN_OR_RETURN(matrix_.dtype, PlainType(*info));
    matrix_.data = {part_.tensor, Transform::kCopy};
    return absl::OkStatus();
  }

  absl::Status ReadFp8Weight() {
    matrix_.dtype = DType::kF8E4M3;
    RETURN_IF_ERROR(CheckShape(*Has(part_.tensor), part_.shape));
    matrix_.data = {part_.tensor, Transform::kCopyF8};
    // Of the activations, which are not quantized.
    for (const char* suffix : {".input_scale", ".activation_scale", ".input_scale_ub"}) {
      Leave(suffix);
    }
    return absl::OkStatus();
  }

  absl::Status ReadFp8() {
    RETURN_IF_ERROR(ReadFp8Weight());
    const std::string name = base_ + ".weight_scale";
    ASSIGN_OR_RETURN(const TensorInfo* scale, Need(name));
    RETURN_IF_ERROR(CheckScaleType(*scale));
    matrix_.scales = {name, Transform::kBroadcastToF32};
    if (scale->shape.empty() || scale->shape == Shape{1}) return absl::OkStatus();
    matrix_.scales.transform = Transform::kScalesToF32;
    if (scale->shape == Shape{matrix_.n} || scale->shape == Shape{matrix_.n, 1}) {
      return absl::OkStatus();
    }
    return Refuse(absl::StrCat("tensor ", QuotedName(name), " is ", ShapeText(scale->shape),
                               ", but scales of ", matrix_.n, " rows are one, or one a row"));
  }

  absl::Status ReadFp8Blocks() {
    RETURN_IF_ERROR(ReadFp8Weight());
    matrix_.group = 128;
    const std::string inverse = base_ + ".weight_scale_inv";
    const std::string name = Has(inverse) != nullptr ? inverse : base_ + ".weight_scale";
    const Shape blocks = {CeilDiv(matrix_.n, 128), CeilDiv(k_, 128)};
    ASSIGN_OR_RETURN(matrix_.scales.tensor, NeedScales(Has(name) ? name : inverse, blocks));
    matrix_.scales.transform = Transform::kScalesToF32;
    return absl::OkStatus();
  }

  absl::Status SetInt4Group() {
    matrix_.dtype = DType::kInt4;
    ASSIGN_OR_RETURN(matrix_.group, Int4GroupOf(config_, base_, matrix_.n, k_));
    return absl::OkStatus();
  }

  // AWQ and GPTQ keep input features in rows.
  absl::Status ReadTransposedInt4(WeightFormat format) {
    const bool awq = format == WeightFormat::kAwq;
    RETURN_IF_ERROR(SetInt4Group());
    const int64_t n = matrix_.n, groups = k_ / matrix_.group;
    ASSIGN_OR_RETURN(
        matrix_.data.tensor,
        Need(base_ + ".qweight", awq ? Shape{k_, n / 8} : Shape{k_ / 8, n}, TensorType::kI32));
    ASSIGN_OR_RETURN(matrix_.scales.tensor, NeedScales(base_ + ".scales", {groups, n}));
    ASSIGN_OR_RETURN(matrix_.zeros.tensor,
                     Need(base_ + ".qzeros", {groups, n / 8}, TensorType::kI32));
    matrix_.data.transform = awq ? Transform::kAwqWeights : Transform::kGptqWeights;
    matrix_.scales.transform = Transform::kTransposedScalesToF16;
    matrix_.zeros.transform = awq                        ? Transform::kAwqZeros
                              : config_.zero_offset == 1 ? Transform::kGptqZerosPlusOne
                                                         : Transform::kGptqZeros;
    return awq ? absl::OkStatus() : CheckOrder(base_ + ".g_idx");
  }

  absl::Status ReadPacked() {
    RETURN_IF_ERROR(SetInt4Group());
    const int64_t n = matrix_.n, groups = k_ / matrix_.group;
    ASSIGN_OR_RETURN(matrix_.data.tensor,
                     Need(base_ + ".weight_packed", {n, k_ / 8}, TensorType::kI32));
    ASSIGN_OR_RETURN(matrix_.scales.tensor, NeedScales(base_ + ".weight_scale", {n, groups}));
    matrix_.data.transform = Transform::kNibbles;
    matrix_.scales.transform = Transform::kScalesToF16;
    if (config_.zeros) {
      ASSIGN_OR_RETURN(matrix_.zeros.tensor, Need(base_ + ".weight_zero_point",
                                                  {CeilDiv(n, 8), groups}, TensorType::kI32));
      matrix_.zeros.transform = Transform::kPackedZeros;
    }
    Leave(".weight_shape");  // what config.json says already
    Leave(".input_scale");
    return CheckOrder(base_ + ".weight_g_idx");
  }

  // The group of every input feature, if the file has it: only the natural one is supported.
  absl::Status CheckOrder(const std::string& name) {
    const TensorInfo* info = Has(name);
    if (info == nullptr) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::string order, Need(name, {k_}, TensorType::kI32));
    std::vector<int32_t> group(static_cast<size_t>(k_));
    RETURN_IF_ERROR(checkpoint_.Read(order, 0, std::as_writable_bytes(std::span(group))));
    for (int64_t i = 0; i < k_; ++i) {
      if (group[i] == i / matrix_.group) continue;
      return absl::UnimplementedError(
          absl::StrCat("tensor ", QuotedName(name),
                       ": input features are not in order (desc_act, actorder: group), which is "
                       "not supported"));
    }
    matrix_.unused.push_back(name);
    return absl::OkStatus();
  }

  absl::Status ReadMxfp4() {
    matrix_.dtype = DType::kMxfp4;
    matrix_.group = 32;
    RETURN_IF_ERROR(CheckMxfp4Rows(base_, k_));
    const int64_t rows = matrix_.n / batch_;
    ASSIGN_OR_RETURN(matrix_.data.tensor,
                     Need(base_ + "_blocks", {batch_, rows, k_ / 32, 16}, TensorType::kU8));
    ASSIGN_OR_RETURN(matrix_.scales.tensor,
                     Need(base_ + "_scales", {batch_, rows, k_ / 32}, TensorType::kU8));
    matrix_.data.transform = interleaved_ ? Transform::kNibblesDeinterleave : Transform::kNibbles;
    matrix_.scales.transform =
        interleaved_ ? Transform::kScaleExponentsDeinterleave : Transform::kScaleExponents;
    return absl::OkStatus();
  }

  const Checkpoint& checkpoint_;
  const QuantizationConfig& config_;
  const SlotPart& part_;
  std::string base_;
  int64_t k_ = 0, batch_ = 1;
  Role role_ = Role::kEmbedding;
  bool interleaved_ = false;
  StoredMatrix matrix_;
};

}  // namespace

absl::StatusOr<StoredMatrix> FindStored(const Checkpoint& checkpoint,
                                        const QuantizationConfig& config, const ImageSlot& slot,
                                        const SlotPart& part) {
  return Finder(checkpoint, config, slot, part).Find();
}

absl::StatusOr<StoredMatrix> AssumeStored(const QuantizationConfig& config, const ImageSlot& slot,
                                          const SlotPart& part, DType plain) {
  StoredMatrix matrix;
  matrix.dtype = plain;
  matrix.n = RowsOf(slot, part);
  std::string base(absl::StripSuffix(part.tensor, ".weight"));
  const bool mxfp4 = config.format == WeightFormat::kMxfp4;
  if (!IsProjection(slot.role) || config.Keeps(base) || (mxfp4 && part.shape.size() != 3)) {
    return matrix;
  }
  matrix.format = config.format;
  RETURN_IF_ERROR(CheckExperts(config.format, part));
  switch (config.format) {
    case WeightFormat::kPlain:
      break;
    case WeightFormat::kFp8:
    case WeightFormat::kFp8Blocks:
      matrix.dtype = DType::kF8E4M3;
      matrix.group = config.format == WeightFormat::kFp8Blocks ? 128 : 0;
      break;
    case WeightFormat::kMxfp4:
      matrix.dtype = DType::kMxfp4;
      matrix.group = 32;
      RETURN_IF_ERROR(CheckMxfp4Rows(base, slot.k));
      break;
    case WeightFormat::kAwq:
    case WeightFormat::kGptq:
    case WeightFormat::kPacked:
      matrix.dtype = DType::kInt4;
      ASSIGN_OR_RETURN(matrix.group, Int4GroupOf(config, base, matrix.n, slot.k));
      if (config.format != WeightFormat::kPacked || config.zeros) matrix.zeros.tensor = base;
      break;
  }
  return matrix;
}

bool IsProjection(Role role) {
  switch (role) {
    case Role::kQkv:
    case Role::kO:
    case Role::kGateUp:
    case Role::kDown:
    case Role::kExpertsGateUp:
    case Role::kExpertsDown:
    case Role::kSharedGateUp:
    case Role::kSharedDown:
      return true;
    default:
      return false;
  }
}

absl::StatusOr<DType> PlainType(const TensorInfo& info) {
  switch (info.type) {
    case TensorType::kF32:
      return DType::kF32;
    case TensorType::kBF16:
      return DType::kBF16;
    case TensorType::kF16:
      return DType::kF16;
    default:
      return Refuse(absl::StrCat("tensor ", QuotedName(info.name), " is of type ",
                                 TensorTypeName(info.type), "; weights can be BF16, F16 or F32"));
  }
}

}  // namespace switchyard::worker
