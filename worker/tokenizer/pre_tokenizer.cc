#include "worker/tokenizer/pre_tokenizer.h"

#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/tokenizer/byte_level.h"
#include "worker/tokenizer/normalizer.h"
#include "worker/tokenizer/split.h"
#include "worker/tokenizer/unicode.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

using Kind = PreTokenizerSpec::Kind;

// How ByteLevel cuts when it is asked to: GPT-2's words.
constexpr char kByteLevelPattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::Status SplitAtMatches(const Regex& pattern, SplitBehavior behavior, bool invert,
                            PieceList* list) {
  auto find = [&](std::string_view text, std::vector<Span>* spans) -> absl::Status {
    SpanBuilder builder(static_cast<uint32_t>(text.size()), spans);
    RETURN_IF_ERROR(
        pattern.ForEachMatch(text, [&](size_t begin, size_t end) { builder.Match(begin, end); }));
    builder.Finish();
    if (invert) {
      for (Span& span : *spans) span.matched = !span.matched;
    }
    return absl::OkStatus();
  };
  return SplitPieces(find, behavior, list);
}

// Every character of the class is a match of its own.
absl::Status SplitAtClass(absl::FunctionRef<bool(char32_t)> in_class, SplitBehavior behavior,
                          PieceList* list) {
  auto find = [&](std::string_view text, std::vector<Span>* spans) {
    SpanBuilder builder(static_cast<uint32_t>(text.size()), spans);
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      if (in_class(DecodeUtf8(text, &pos))) builder.Match(begin, pos);
    }
    builder.Finish();
    return absl::OkStatus();
  };
  return SplitPieces(find, behavior, list);
}

// Keeps runs of word characters and runs of what is neither word nor white space.
absl::Status SplitWords(PieceList* list) {
  enum class Class { kSpace, kWord, kOther };
  auto class_of = [](char32_t c) {
    return IsWord(c) ? Class::kWord : IsWhiteSpace(c) ? Class::kSpace : Class::kOther;
  };
  auto find = [&](std::string_view text, std::vector<Span>* spans) {
    for (size_t pos = 0; pos < text.size();) {
      const auto begin = static_cast<uint32_t>(pos);
      const Class c = class_of(DecodeUtf8(text, &pos));
      for (size_t next = pos; next < text.size() && class_of(DecodeUtf8(text, &next)) == c;) {
        pos = next;
      }
      spans->push_back({begin, static_cast<uint32_t>(pos), c == Class::kSpace});
    }
    return absl::OkStatus();
  };
  return SplitPieces(find, SplitBehavior::kRemoved, list);
}

// Rewrites every piece; the pieces stay as many as they were.
absl::Status RewritePieces(
    absl::FunctionRef<void(std::string_view piece, bool at_start, std::string* out)> rewrite,
    PieceList* list) {
  std::string text;
  text.reserve(list->text.size() + list->pieces.size());
  for (size_t i = 0; i < list->pieces.size(); ++i) {
    PieceList::Piece& piece = list->pieces[i];
    const size_t begin = text.size();
    rewrite(list->Get(piece), i == 0 && list->at_start, &text);
    if (text.size() > kMaxTextBytes) {
      return absl::InvalidArgumentError(absl::StrCat("the text becomes longer than ", kMaxTextBytes,
                                                     " bytes before it is split into words"));
    }
    piece = {static_cast<uint32_t>(begin), static_cast<uint32_t>(text.size())};
  }
  list->text = std::move(text);
  return absl::OkStatus();
}

absl::Status ApplyMetaspace(const PreTokenizerSpec& spec, const Regex& replacement,
                            PieceList* list) {
  auto rewrite = [&](std::string_view piece, bool at_start, std::string* out) {
    const bool prepend = spec.prepend_scheme == PrependScheme::kAlways ||
                         (spec.prepend_scheme == PrependScheme::kFirst && at_start);
    const bool has_one =
        piece[0] == ' ' || piece.substr(0, spec.replacement.size()) == spec.replacement;
    if (prepend && !has_one) *out += spec.replacement;
    for (char c : piece) {
      if (c == ' ') {
        *out += spec.replacement;
      } else {
        *out += c;
      }
    }
  };
  RETURN_IF_ERROR(RewritePieces(rewrite, list));
  if (!spec.split) return absl::OkStatus();
  return SplitAtMatches(replacement, SplitBehavior::kMergedWithNext, /*invert=*/false, list);
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Make(std::vector<PreTokenizerSpec> steps) {
  PreTokenizer result;
  for (PreTokenizerSpec& spec : steps) {
    Step step;
    if (spec.kind == Kind::kSplit) {
      ASSIGN_OR_RETURN(step.pattern, Regex::Compile(spec.pattern));
    } else if (spec.kind == Kind::kByteLevel && spec.use_regex) {
      ASSIGN_OR_RETURN(step.pattern, Regex::Compile({true, kByteLevelPattern}));
    } else if (spec.kind == Kind::kMetaspace) {
      ASSIGN_OR_RETURN(step.pattern, Regex::Compile({false, spec.replacement}));
    }
    step.spec = std::move(spec);
    result.steps_.push_back(std::move(step));
  }
  result.pieces_are_bytes_ =
      !result.steps_.empty() && result.steps_.back().spec.kind == Kind::kByteLevel;
  return result;
}

absl::Status PreTokenizer::Apply(PieceList* list) const {
  for (const Step& step : steps_) {
    const PreTokenizerSpec& spec = step.spec;
    switch (spec.kind) {
      case Kind::kByteLevel:
        if (spec.add_prefix_space) {
          auto add_space = [](std::string_view piece, bool, std::string* out) {
            if (piece[0] != ' ') *out += ' ';
            *out += piece;
          };
          RETURN_IF_ERROR(RewritePieces(add_space, list));
        }
        if (spec.use_regex) {
          RETURN_IF_ERROR(SplitAtMatches(*step.pattern, SplitBehavior::kIsolated, false, list));
        }
        if (&step != &steps_.back()) {
          auto write = [](std::string_view piece, bool, std::string* out) {
            AppendByteLevel(piece, out);
          };
          RETURN_IF_ERROR(RewritePieces(write, list));
        }
        break;
      case Kind::kSplit:
        RETURN_IF_ERROR(SplitAtMatches(*step.pattern, spec.behavior, spec.invert, list));
        break;
      case Kind::kDigits:
        RETURN_IF_ERROR(SplitAtClass(
            IsNumeric,
            spec.individual_digits ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, list));
        break;
      case Kind::kMetaspace:
        RETURN_IF_ERROR(ApplyMetaspace(spec, *step.pattern, list));
        break;
      case Kind::kWhitespace:
        RETURN_IF_ERROR(SplitWords(list));
        break;
      case Kind::kWhitespaceSplit:
        RETURN_IF_ERROR(SplitAtClass(IsWhiteSpace, SplitBehavior::kRemoved, list));
        break;
      case Kind::kPunctuation:
        RETURN_IF_ERROR(SplitAtClass(IsPunctuation, spec.behavior, list));
        break;
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard::worker::tokenizer
