// Text to ids: added tokens, then normalizer, pre-tokenizer and model on the text between them.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/tokenizer/byte_level.h"
#include "worker/tokenizer/post_processor.h"
#include "worker/tokenizer/tokenizer_parts.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker {
namespace {

using tokenizer::PieceList;
using tokenizer::Segment;

constexpr size_t kIdleWorkspaces = 4;
// A longer piece is no word (a tokenizer that does not split, or hostile text): it is first cut
// where no merge can reach across, which makes words of it.
constexpr size_t kLongPiece = 64;
// Scratch memory that a huge text has grown is not kept.
constexpr size_t kKeptScratch = 1 << 16;

}  // namespace

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                                       const EncodeOptions& options) const {
  if (text.size() > tokenizer::kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", text.size(), " bytes, at most ", tokenizer::kMaxTextBytes));
  }
  if (const size_t at = FindInvalidUtf8(text); at != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the text is not valid UTF-8: byte 0x",
        absl::Hex(static_cast<uint8_t>(text[at]), absl::kZeroPad2), " at offset ", at));
  }
  std::vector<int32_t> ids;
  std::vector<Segment> segments;
  parts_->added.Split(text, /*normalized=*/false, options.parse_special, &segments);
  std::unique_ptr<EncodeWorkspace> workspace = parts_->TakeWorkspace();
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
      continue;
    }
    RETURN_IF_ERROR(parts_->EncodeText(text.substr(segment.begin, segment.end - segment.begin),
                                       /*at_start=*/segment.begin == 0, options.parse_special,
                                       workspace.get(), &ids));
  }
  parts_->GiveWorkspace(std::move(workspace));
  if (options.add_special_tokens) {
    ids = tokenizer::ApplyTemplates(parts_->templates, std::move(ids));
  }
  return ids;
}

// Text without added tokens of the first kind.
absl::Status Tokenizer::Parts::EncodeText(std::string_view text, bool at_start, bool parse_special,
                                          EncodeWorkspace* workspace,
                                          std::vector<int32_t>* ids) const {
  std::string normalized(text);
  RETURN_IF_ERROR(normalizer.Apply(&normalized));
  auto encode = [&](std::string part, bool part_at_start) -> absl::Status {
    if (part.empty()) return absl::OkStatus();
    PieceList list;
    list.pieces.push_back({0, static_cast<uint32_t>(part.size())});
    list.text = std::move(part);
    list.at_start = part_at_start;
    RETURN_IF_ERROR(pre_tokenizer.Apply(&list));
    return EncodePieces(list, workspace, ids);
  };
  if (!added.any_normalized()) return encode(std::move(normalized), at_start);

  std::vector<Segment> segments;
  added.Split(normalized, /*normalized=*/true, parse_special, &segments);
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      ids->push_back(segment.id);
    } else {
      RETURN_IF_ERROR(encode(normalized.substr(segment.begin, segment.end - segment.begin),
                             at_start && segment.begin == 0));
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Parts::EncodePieces(const PieceList& list, EncodeWorkspace* workspace,
                                            std::vector<int32_t>* ids) const {
  const bool cut = model.may_cut() && !pre_tokenizer.pieces_are_bytes();
  for (const PieceList::Piece& piece : list.pieces) {
    std::string_view text = list.Get(piece);
    if (cut && text.size() > kLongPiece) {
      size_t pos = 0;
      char32_t left = tokenizer::DecodeUtf8(text, &pos);
      size_t begin = 0;
      while (pos < text.size()) {
        const size_t border = pos;
        const char32_t right = tokenizer::DecodeUtf8(text, &pos);
        if (model.NeverJoined(left, right)) {
          RETURN_IF_ERROR(EncodeWord(text.substr(begin, border - begin), workspace, ids));
          begin = border;
        }
        left = right;
      }
      text = text.substr(begin);
    }
    RETURN_IF_ERROR(EncodeWord(text, workspace, ids));
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::Parts::EncodeWord(std::string_view word, EncodeWorkspace* workspace,
                                          std::vector<int32_t>* ids) const {
  const bool short_word = word.size() <= tokenizer::WordCache::kMaxBytes;
  uint64_t hash = 0;
  if (short_word) {
    const std::span<const int32_t> known = workspace->cache.Get(word, &hash);
    if (!known.empty()) {
      ids->insert(ids->end(), known.begin(), known.end());
      return absl::OkStatus();
    }
  }
  std::string_view spelled = word;
  if (pre_tokenizer.pieces_are_bytes()) {
    workspace->word.clear();
    tokenizer::AppendByteLevel(word, &workspace->word);
    spelled = workspace->word;
  }
  const size_t before = ids->size();
  RETURN_IF_ERROR(model.Encode(spelled, &workspace->bpe, ids));
  if (short_word) {
    workspace->cache.Put(word, hash, std::span<const int32_t>(*ids).subspan(before));
  }
  return absl::OkStatus();
}

std::unique_ptr<EncodeWorkspace> Tokenizer::Parts::TakeWorkspace() const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<EncodeWorkspace> workspace = std::move(idle_.back());
      idle_.pop_back();
      return workspace;
    }
  }
  return std::make_unique<EncodeWorkspace>();
}

void Tokenizer::Parts::GiveWorkspace(std::unique_ptr<EncodeWorkspace> workspace) const {
  if (workspace->bpe.ids.capacity() > kKeptScratch) workspace->bpe = {};
  if (workspace->word.capacity() > kKeptScratch) workspace->word = {};
  std::lock_guard<std::mutex> lock(mutex_);
  if (idle_.size() < kIdleWorkspaces) idle_.push_back(std::move(workspace));
}

}  // namespace switchyard::worker
