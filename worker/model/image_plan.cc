#include <algorithm>
#include <bit>
#include <functional>
#include <iterator>
#include <map>
#include <unordered_set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/checked.h"
#include "common/status_macros.h"
#include "worker/model/image.h"
#include "worker/model/image_elements.h"
#include "worker/model/image_matrix.h"
#include "worker/model/image_slots.h"
#include "worker/model/stored_matrix.h"

namespace switchyard::worker {
namespace {

using kernels::DType;

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kLeastChunk = uint64_t{256} << 10;
constexpr uint64_t kLargestChunk = uint64_t{64} << 20;
constexpr uint64_t kChunksWanted = 64;
constexpr uint64_t kLargestBias = uint64_t{1} << 20;
// Part of every key: raise it when the layout of an image, or what its bytes mean, changes.
constexpr char kLayoutVersion[] = "layout 2";

class Planner {
 public:
  // Without a checkpoint every matrix that `config` does not speak of is of type `without`.
  Planner(const Architecture& arch, const Checkpoint* checkpoint, DType without,
          const QuantizationConfig& config, Quantize quantize)
      : arch_(arch),
        checkpoint_(checkpoint),
        without_(without),
        config_(config),
        quantize_(quantize) {}

  absl::StatusOr<ImageLayout> Plan() {
    if (quantize_ != Quantize::kAsStored && config_.format != WeightFormat::kPlain) {
      return Invalid(absl::StrCat("is ", WeightFormatName(config_.format),
                                  " already, and cannot be quantized once more"));
    }
    const std::string prefix = FirstThatIs(arch_.names.prefixes, "embed_tokens.weight");
    const std::string head = FirstThatIs(arch_.names.heads, "");
    const HasTensor has = [this](const std::string& name) { return Has(name); };
    RETURN_IF_ERROR(Add(EmbeddingSlots(arch_, prefix)));
    for (size_t i = 0; i < arch_.layers.size(); ++i) {
      RETURN_IF_ERROR(Add(LayerSlots(arch_, static_cast<int32_t>(i), prefix, has)));
      layout_.layer_end.push_back(end_);
    }
    RETURN_IF_ERROR(Add(HeadSlots(arch_, prefix, head)));
    RETURN_IF_ERROR(CheckLeftOver(prefix));
    NoteForms();
    Finish();
    return std::move(layout_);
  }

 private:
  bool Has(const std::string& name) const {
    return checkpoint_ != nullptr && checkpoint_->Find(name) != nullptr;
  }

  std::string FirstThatIs(const std::vector<std::string>& candidates, const char* suffix) const {
    for (const std::string& candidate : candidates) {
      if (Has(candidate + suffix)) return candidate;
    }
    return candidates.front();
  }

  absl::Status Add(const std::vector<ImageSlot>& slots) {
    for (const ImageSlot& slot : slots) RETURN_IF_ERROR(AddSlot(slot));
    return absl::OkStatus();
  }

  absl::Status AddSlot(const ImageSlot& slot) { return slot.f32 ? AddF32(slot) : AddMatrix(slot); }

  // Small tensors that are kept in float32.
  absl::Status AddF32(const ImageSlot& slot) {
    ImageTensor tensor{.role = slot.role,
                       .layer = slot.layer,
                       .batch = slot.batch,
                       .n = slot.n,
                       .k = slot.k,
                       .sources = {}};
    RETURN_IF_ERROR(Place(tensor, {.dtype = DType::kF32}));
    uint64_t offset = 0;
    for (const SlotPart& part : slot.parts) {
      if (checkpoint_ == nullptr) break;
      ASSIGN_OR_RETURN(const DType type, TypeOfPart(part));
      uint64_t bytes = 4;
      for (const int64_t size : part.shape) bytes *= static_cast<uint64_t>(size);
      const Transform transform = slot.transform != Transform::kCopy ? slot.transform
                                  : type == DType::kF32              ? Transform::kCopy
                                                                     : Transform::kConvert;
      tensor.sources.push_back({part.tensor, transform, offset, bytes});
      layout_.took_work |= !IsElementwise(transform);
      offset += bytes;
    }
    layout_.tensors.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::Status AddMatrix(const ImageSlot& slot) {
    std::vector<StoredMatrix> parts;
    for (const SlotPart& part : slot.parts) {
      absl::StatusOr<StoredMatrix> stored = checkpoint_ == nullptr
                                                ? AssumeStored(config_, slot, part, without_)
                                                : FindStored(*checkpoint_, config_, slot, part);
      if (!stored.ok()) return Where(stored.status());
      if (checkpoint_ != nullptr) Use(*stored);
      parts.push_back(*std::move(stored));
    }
    absl::StatusOr<MatrixForm> form = CommonForm(slot, parts, quantize_);
    if (!form.ok()) return Where(form.status());
    std::vector<ImageTensor> pieces = MatrixPieces(slot, *form);
    for (ImageTensor& piece : pieces) RETURN_IF_ERROR(Place(piece, *form));
    if (checkpoint_ != nullptr) {
      layout_.took_work |= AddMatrixSources(slot, parts, *form, pieces);
    }
    Count(slot, parts.front(), *form);
    std::move(pieces.begin(), pieces.end(), std::back_inserter(layout_.tensors));
    return absl::OkStatus();
  }

  void Use(const StoredMatrix& matrix) {
    for (const PieceSource* piece : {&matrix.data, &matrix.scales, &matrix.zeros}) {
      if (!piece->tensor.empty()) used_.insert(piece->tensor);
    }
    for (const std::string& name : matrix.unused) used_.insert(name);
  }

  // For the notes: what matrices are kept as.
  void Count(const ImageSlot& slot, const StoredMatrix& first, const MatrixForm& form) {
    if (form.quantize) {
      ++forms_[absl::StrCat("quantized to ", kernels::DTypeName(form.dtype), " on the way")];
    } else if (first.format != WeightFormat::kPlain) {
      ++forms_[absl::StrCat("stored as ", WeightFormatName(first.format))];
    } else if (quantize_ != Quantize::kAsStored && IsProjection(slot.role)) {
      ++forms_[absl::StrCat("not quantized: rows of ", slot.k, " are no multiple of 32")];
    }
  }

  void NoteForms() {
    for (const auto& [form, count] : forms_) {
      layout_.notes.push_back(absl::StrCat(count, count == 1 ? " matrix " : " matrices ", form));
    }
  }

  // The type of a part that is there, in the right shape and of a type that we have.
  absl::StatusOr<DType> TypeOfPart(const SlotPart& part) {
    const TensorInfo* info = checkpoint_->Find(part.tensor);
    if (info == nullptr) {
      return Invalid(absl::StrCat("tensor ", QuotedName(part.tensor), " is missing (",
                                  ShapeText(part.shape), " by config.json)"));
    }
    if (info->shape != part.shape) {
      return Invalid(absl::StrCat("tensor ", QuotedName(part.tensor), " is ",
                                  ShapeText(info->shape), ", but by config.json it must be ",
                                  ShapeText(part.shape)));
    }
    absl::StatusOr<DType> type = PlainType(*info);
    if (!type.ok()) return Where(type.status());
    used_.insert(part.tensor);
    return *type;
  }

  absl::Status Place(ImageTensor& tensor, const MatrixForm& form) {
    // In eighths of bytes a matrix has at most 32 for each weight.
    std::optional<uint64_t> bound = 32;
    for (const int64_t size : {tensor.batch, tensor.n, tensor.k}) {
      if (bound) bound = CheckedMul(*bound, static_cast<uint64_t>(size));
    }
    if (!bound) return Invalid("the image is too large");
    tensor.bytes = BytesOf(tensor, form);
    tensor.offset = RoundUp(end_, kAlignment);
    const std::optional<uint64_t> end = CheckedAdd(tensor.offset, tensor.bytes);
    if (!end || *end > static_cast<uint64_t>(INT64_MAX)) return Invalid("the image is too large");
    end_ = *end;
    return absl::OkStatus();
  }

  // A piece's own shape counts its elements, of whole bytes but for 4-bit numbers.
  static uint64_t BytesOf(const ImageTensor& tensor, const MatrixForm& form) {
    const uint64_t count = static_cast<uint64_t>(tensor.batch * tensor.n * tensor.k);
    if (tensor.piece == Piece::kData) {
      return static_cast<uint64_t>(kernels::DTypeBytes(form.dtype, static_cast<int64_t>(count)));
    }
    const bool f32 = tensor.dtype == DType::kF32, f16 = tensor.dtype == DType::kF16;
    return count * (f32 ? 4 : f16 ? 2 : 1);
  }

  // True if the checkpoint's tensor is short, and of zero bytes.
  bool IsZero(const std::string& name) const {
    const TensorInfo* info = checkpoint_->Find(name);
    if (info == nullptr || info->bytes > kLargestBias) return false;
    std::vector<std::byte> bytes(info->bytes);
    return checkpoint_->Read(name, 0, bytes).ok() &&
           std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
  }

  // Why a tensor that no role uses may be skipped; empty: it may not.
  std::string ReasonToSkip(const std::string& name, const std::string& prefix) const {
    for (const std::string& skipped : arch_.names.skipped) {
      if (absl::StartsWith(name, skipped)) return "tensors of the vision part skipped";
    }
    if (absl::EndsWith(name, "rotary_emb.inv_freq")) return "rotary_emb.inv_freq tensors skipped";
    for (const char* suffix : {".k_scale", ".v_scale", ".q_scale"}) {
      if (config_.format != WeightFormat::kPlain && absl::EndsWith(name, suffix)) {
        return "scales of a quantized KV cache skipped";
      }
    }
    if (config_.format == WeightFormat::kGptq && absl::EndsWith(name, ".bias") && IsZero(name)) {
      return "biases of nothing but zeros skipped";  // as AutoGPTQ adds them
    }
    const auto& heads = arch_.names.heads;
    if (arch_.tied_embeddings && std::find(heads.begin(), heads.end(), name) != heads.end()) {
      return "head tensor skipped: tie_word_embeddings makes the embedding the head";
    }
    absl::string_view rest = name;
    int32_t layer = 0;
    if (arch_.names.more_layers && absl::ConsumePrefix(&rest, prefix + "layers.") &&
        absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer) &&
        layer >= static_cast<int32_t>(arch_.layers.size())) {
      return "tensors of multi-token-prediction layers skipped";
    }
    return "";
  }

  absl::Status CheckLeftOver(const std::string& prefix) {
    if (checkpoint_ == nullptr) return absl::OkStatus();
    std::map<std::string, int> skipped;
    std::vector<std::string> left_over;
    for (const SafetensorsFile& file : checkpoint_->files()) {
      for (const TensorInfo& tensor : file.tensors()) {
        if (used_.contains(tensor.name)) continue;
        const std::string reason = ReasonToSkip(tensor.name, prefix);
        if (reason.empty()) {
          left_over.push_back(tensor.name);
        } else {
          ++skipped[reason];
        }
      }
    }
    for (const auto& [reason, count] : skipped) {
      layout_.notes.push_back(absl::StrCat(count, " ", reason));
    }
    if (left_over.empty()) return absl::OkStatus();
    const std::string more =
        left_over.size() == 1 ? "" : absl::StrCat(" and ", left_over.size() - 1, " more");
    return Invalid(absl::StrCat("tensor ", QuotedName(left_over.front()), more,
                                " would not be used: no part of this ", arch_.family,
                                " model as config.json describes it"));
  }

  void Finish() {
    layout_.bytes = RoundUp(end_, kAlignment);
    layout_.chunk_bytes = std::clamp(std::bit_ceil(CeilDiv(layout_.bytes, kChunksWanted)),
                                     kLeastChunk, kLargestChunk);
    layout_.chunks = static_cast<uint32_t>(CeilDiv(layout_.bytes, layout_.chunk_bytes));
    if (checkpoint_ == nullptr) return;
    std::string text = absl::StrCat(kLayoutVersion, "|", checkpoint_->identity());
    for (const ImageTensor& tensor : layout_.tensors) {
      absl::StrAppend(&text, "|", static_cast<int>(tensor.role), ":",
                      static_cast<int>(tensor.piece), ":", static_cast<int>(tensor.dtype), ":",
                      tensor.group, ":", tensor.quantize, ":", tensor.offset, ":", tensor.bytes);
    }
    const std::string again = absl::StrCat("again|", text);
    layout_.key = absl::StrFormat("%016x%016x", ImageChecksum(std::as_bytes(std::span(text))),
                                  ImageChecksum(std::as_bytes(std::span(again))));
  }

  absl::Status Invalid(const std::string& what) const {
    return Where(absl::InvalidArgumentError(what));
  }
  absl::Status Where(const absl::Status& status) const {
    const std::string where = checkpoint_ == nullptr ? "config.json" : checkpoint_->dir();
    return absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
  }

  const Architecture& arch_;
  const Checkpoint* checkpoint_;
  DType without_;
  const QuantizationConfig& config_;
  Quantize quantize_;
  std::map<std::string, int> forms_;
  ImageLayout layout_;
  uint64_t end_ = 0;
  std::unordered_set<std::string> used_;
};

}  // namespace

absl::StatusOr<ImageLayout> PlanImage(const Architecture& arch, const Checkpoint& checkpoint,
                                      Quantize quantize) {
  absl::StatusOr<QuantizationConfig> config = ReadQuantizationConfig(checkpoint.config());
  if (!config.ok()) {
    return absl::Status(config.status().code(),
                        absl::StrCat(checkpoint.dir(), ": ", config.status().message()));
  }
  return Planner(arch, &checkpoint, DType::kBF16, *config, quantize).Plan();
}

absl::StatusOr<ImageLayout> PlanImageWithoutWeights(const Architecture& arch, DType dtype,
                                                    const QuantizationConfig& config,
                                                    Quantize quantize) {
  return Planner(arch, nullptr, dtype, config, quantize).Plan();
}

bool HasQuantizedMatrix(const ImageLayout& image) {
  return std::any_of(image.tensors.begin(), image.tensors.end(), [](const ImageTensor& tensor) {
    return tensor.piece == Piece::kData && tensor.batch == 1 &&
           (tensor.dtype == DType::kF8E4M3 || tensor.dtype == DType::kInt4);
  });
}

bool HasFp8RowMatrix(const ImageLayout& image) {
  return std::any_of(image.tensors.begin(), image.tensors.end(), [](const ImageTensor& tensor) {
    return tensor.piece == Piece::kData && tensor.batch == 1 && tensor.dtype == DType::kF8E4M3 &&
           tensor.group == 0;
  });
}

const char* RoleName(Role role) {
  // In the order of the enumeration.
  constexpr const char* kNames[] = {
      "embedding",
      "attention norm",
      "qkv",
      "qkv bias",
      "q norm",
      "k norm",
      "sinks",
      "o",
      "o bias",
      "post attention norm",
      "mlp norm",
      "gate/up",
      "gate/up bias",
      "down",
      "down bias",
      "router",
      "router bias",
      "router correction",
      "experts gate/up",
      "experts gate/up bias",
      "experts down",
      "experts down bias",
      "shared gate/up",
      "shared down",
      "post mlp norm",
      "final norm",
      "head",
  };
  static_assert(std::size(kNames) == static_cast<size_t>(Role::kHead) + 1);
  return kNames[static_cast<size_t>(role)];
}

}  // namespace switchyard::worker
