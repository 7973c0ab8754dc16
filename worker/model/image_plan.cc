#include <algorithm>
#include <bit>
#include <functional>
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
#include "worker/model/image_slots.h"

namespace switchyard::worker {
namespace {

using kernels::DType;

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kLeastChunk = uint64_t{256} << 10;
constexpr uint64_t kLargestChunk = uint64_t{64} << 20;
constexpr uint64_t kChunksWanted = 64;
// Part of every key: raise it when the layout of an image, or what its bytes mean, changes.
constexpr char kLayoutVersion[] = "layout 1";

std::optional<DType> DTypeOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return DType::kF32;
    case TensorType::kBF16:
      return DType::kBF16;
    case TensorType::kF16:
      return DType::kF16;
    default:
      return std::nullopt;
  }
}

// The type that holds both without loss.
DType Wider(DType a, DType b) { return a == b ? a : DType::kF32; }

uint64_t ElementBytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

bool Moves(Transform transform) {
  return transform == Transform::kTranspose || transform == Transform::kTransposeDeinterleave;
}

// How the part comes into a tensor of type `to`.
Transform Resolve(Transform wanted, DType from, DType to) {
  if (wanted != Transform::kCopy) return wanted;
  return from == to ? Transform::kCopy : Transform::kConvert;
}

class Planner {
 public:
  // Without a checkpoint every matrix is of type `without`.
  Planner(const Architecture& arch, const Checkpoint* checkpoint, DType without)
      : arch_(arch), checkpoint_(checkpoint), without_(without) {}

  absl::StatusOr<ImageLayout> Plan() {
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

  absl::Status AddSlot(const ImageSlot& slot) {
    ImageTensor tensor{.role = slot.role,
                       .layer = slot.layer,
                       .batch = slot.batch,
                       .n = slot.n,
                       .k = slot.k,
                       .sources = {}};
    std::vector<DType> types;
    for (const SlotPart& part : slot.parts) {
      ASSIGN_OR_RETURN(const DType type, TypeOfPart(part));
      types.push_back(type);
    }
    tensor.dtype = slot.f32 ? DType::kF32 : types.front();
    for (const DType type : types) tensor.dtype = Wider(tensor.dtype, type);
    RETURN_IF_ERROR(Place(tensor));
    if (checkpoint_ != nullptr) AddSources(slot, types, tensor);
    layout_.tensors.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  // The type of a part that is there, in the right shape and of a type that we have.
  absl::StatusOr<DType> TypeOfPart(const SlotPart& part) {
    if (checkpoint_ == nullptr) return without_;
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
    const std::optional<DType> type = DTypeOf(info->type);
    if (!type) {
      return Invalid(absl::StrCat("tensor ", QuotedName(part.tensor), " is of type ",
                                  TensorTypeName(info->type), "; weights can be BF16, F16 or F32"));
    }
    used_.insert(part.tensor);
    return *type;
  }

  absl::Status Place(ImageTensor& tensor) {
    std::optional<uint64_t> bytes = ElementBytes(tensor.dtype);
    for (const int64_t size : {tensor.batch, tensor.n, tensor.k}) {
      if (bytes) bytes = CheckedMul(*bytes, static_cast<uint64_t>(size));
    }
    const uint64_t offset = RoundUp(end_, kAlignment);
    const std::optional<uint64_t> end = bytes ? CheckedAdd(offset, *bytes) : std::nullopt;
    if (!end || *end > static_cast<uint64_t>(INT64_MAX)) return Invalid("the image is too large");
    tensor.offset = offset;
    tensor.bytes = *bytes;
    end_ = *end;
    return absl::OkStatus();
  }

  void AddSources(const ImageSlot& slot, const std::vector<DType>& types, ImageTensor& tensor) {
    uint64_t offset = 0;
    for (size_t i = 0; i < slot.parts.size(); ++i) {
      const Transform transform = Resolve(slot.transform, types[i], tensor.dtype);
      uint64_t bytes = ElementBytes(tensor.dtype);
      for (const int64_t size : slot.parts[i].shape) bytes *= static_cast<uint64_t>(size);
      tensor.sources.push_back({slot.parts[i].tensor, transform, offset, bytes});
      offset += bytes;
      if (Moves(transform) || (!slot.f32 && transform != Transform::kCopy))
        layout_.took_work = true;
    }
  }

  // Why a tensor that no role uses may be skipped; empty: it may not.
  std::string ReasonToSkip(const std::string& name, const std::string& prefix) const {
    for (const std::string& skipped : arch_.names.skipped) {
      if (absl::StartsWith(name, skipped)) return "tensors of the vision part skipped";
    }
    if (absl::EndsWith(name, "rotary_emb.inv_freq")) return "rotary_emb.inv_freq tensors skipped";
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
                      static_cast<int>(tensor.dtype), ":", tensor.offset, ":", tensor.bytes);
    }
    const std::string again = absl::StrCat("again|", text);
    layout_.key = absl::StrFormat("%016x%016x", ImageChecksum(std::as_bytes(std::span(text))),
                                  ImageChecksum(std::as_bytes(std::span(again))));
  }

  absl::Status Invalid(const std::string& what) const {
    const std::string where = checkpoint_ == nullptr ? "config.json" : checkpoint_->dir();
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
  }

  const Architecture& arch_;
  const Checkpoint* checkpoint_;
  DType without_;
  ImageLayout layout_;
  uint64_t end_ = 0;
  std::unordered_set<std::string> used_;
};

}  // namespace

absl::StatusOr<ImageLayout> PlanImage(const Architecture& arch, const Checkpoint& checkpoint) {
  return Planner(arch, &checkpoint, DType::kBF16).Plan();
}

absl::StatusOr<ImageLayout> PlanImageWithoutWeights(const Architecture& arch, DType dtype) {
  return Planner(arch, nullptr, dtype).Plan();
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
