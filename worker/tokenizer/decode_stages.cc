#include "worker/tokenizer/decode_stages.h"

#include <cctype>
#include <cstdint>

#include "worker/tokenizer/byte_level.h"
#include "worker/tokenizer/normalizer.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

using Kind = DecoderSpec::Kind;

class CollectStage final : public DecodeStage {
 public:
  explicit CollectStage(std::string* out) : DecodeStage(nullptr), out_(out) {}
  void Push(std::string_view piece) override { out_->append(piece); }
  void Finish() override {}

 private:
  std::string* out_;
};

class JoinStage final : public DecodeStage {
 public:
  using DecodeStage::DecodeStage;
  void Push(std::string_view piece) override {
    if (!first_) next_->Push(" ");
    first_ = false;
    next_->Push(piece);
  }

 private:
  bool first_ = true;
};

class WholeStage final : public DecodeStage {
 public:
  using DecodeStage::DecodeStage;
  void Push(std::string_view piece) override { text_.append(piece); }
  void Finish() override {
    next_->Push(text_);
    next_->Finish();
  }

 private:
  std::string text_;
};

class FuseStage final : public DecodeStage {
 public:
  using DecodeStage::DecodeStage;
  void Push(std::string_view piece) override { next_->Push(piece); }
};

class ByteLevelStage final : public DecodeStage {
 public:
  using DecodeStage::DecodeStage;
  void Push(std::string_view piece) override {
    bytes_.clear();
    AppendByteLevelDecoded(piece, &bytes_);
    text_.clear();
    utf8_.Push(bytes_, &text_);
    next_->Push(text_);
  }
  void Finish() override {
    text_.clear();
    utf8_.Finish(&text_);
    next_->Push(text_);
    next_->Finish();
  }

 private:
  LossyUtf8Decoder utf8_;
  std::string bytes_, text_;
};

// A run of byte tokens is one string if all of it is valid UTF-8, else a U+FFFD for every byte of
// it; so nothing of a run is certain before its end.
class ByteFallbackStage final : public DecodeStage {
 public:
  using DecodeStage::DecodeStage;
  void Push(std::string_view piece) override {
    if (const int byte = ByteOf(piece); byte >= 0) {
      run_.push_back(static_cast<char>(byte));
      return;
    }
    EndRun();
    next_->Push(piece);
  }
  void Finish() override {
    EndRun();
    next_->Finish();
  }

 private:
  // <0xHH>. A plus sign in place of the first digit is what the library takes, too.
  static int ByteOf(std::string_view piece) {
    if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
    const int high = piece[3] == '+' ? 0 : Digit(piece[3]), low = Digit(piece[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
  }
  static int Digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const int lower = std::tolower(static_cast<unsigned char>(c));
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
  }
  void EndRun() {
    if (run_.empty()) return;
    if (FindInvalidUtf8(run_) == std::string_view::npos) {
      next_->Push(run_);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) next_->Push("\xEF\xBF\xBD");
    }
    run_.clear();
  }

  std::string run_;
};

class ReplaceStage final : public DecodeStage {
 public:
  ReplaceStage(const Decoder::Step& step, DecodeStage* next) : DecodeStage(next), step_(step) {}
  void Push(std::string_view piece) override {
    std::string text(piece);
    // A pattern that needs too many steps leaves the token as it is: half a sequence's text must
    // not be lost for it.
    if (ReplaceAll(*step_.pattern, step_.spec.content, &text).ok()) {
      next_->Push(text);
    } else {
      next_->Push(piece);
    }
  }

 private:
  const Decoder::Step& step_;
};

// Strips every token.
class StripStage final : public DecodeStage {
 public:
  StripStage(const DecoderSpec& spec, DecodeStage* next) : DecodeStage(next), spec_(spec) {}
  void Push(std::string_view piece) override {
    const std::string& content = spec_.content;
    for (uint32_t i = 0; i < spec_.start && piece.substr(0, content.size()) == content; ++i) {
      piece.remove_prefix(content.size());
    }
    for (uint32_t i = 0; i < spec_.stop && piece.size() >= content.size() &&
                         piece.substr(piece.size() - content.size()) == content;
         ++i) {
      piece.remove_suffix(content.size());
    }
    next_->Push(piece);
  }

 private:
  const DecoderSpec& spec_;
};

// Strips the whole text, of which it sees parts. What might be stripped from the end is held back:
// only a number, since it is always the same character.
class StripTextStage final : public DecodeStage {
 public:
  StripTextStage(const DecoderSpec& spec, DecodeStage* next)
      : DecodeStage(next), spec_(spec), start_left_(spec.start) {}
  void Push(std::string_view piece) override {
    const std::string& content = spec_.content;
    while (start_left_ > 0 && !piece.empty()) {
      if (piece.substr(0, content.size()) != content) {
        start_left_ = 0;
        break;
      }
      piece.remove_prefix(content.size());
      --start_left_;
    }
    if (spec_.stop == 0) {
      next_->Push(piece);
      return;
    }
    uint64_t tail = 0;
    std::string_view head = piece;
    while (head.size() >= content.size() && head.substr(head.size() - content.size()) == content) {
      head.remove_suffix(content.size());
      ++tail;
    }
    if (!head.empty()) {
      Release(held_);
      next_->Push(head);
    }
    held_ += tail;
    if (held_ > spec_.stop) Release(held_ - spec_.stop);
  }

 private:
  void Release(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) next_->Push(spec_.content);
    held_ -= count;
  }

  const DecoderSpec& spec_;
  uint32_t start_left_;
  uint64_t held_ = 0;  // characters at the end of what came so far
};

// Spaces for the replacement, which is left out in the first token where the text starts with one
// that was put in.
class MetaspaceStage final : public DecodeStage {
 public:
  MetaspaceStage(const DecoderSpec& spec, DecodeStage* next) : DecodeStage(next), spec_(spec) {}
  void Push(std::string_view piece) override {
    const std::string& mark = spec_.replacement;
    const bool drop = first_ && spec_.prepend_scheme != PrependScheme::kNever;
    first_ = false;
    std::string text;
    for (size_t at = piece.find(mark); at != std::string_view::npos; at = piece.find(mark)) {
      text.append(piece.substr(0, at));
      if (!drop) text += ' ';
      piece.remove_prefix(at + mark.size());
    }
    text.append(piece);
    next_->Push(text);
  }

 private:
  const DecoderSpec& spec_;
  bool first_ = true;
};

}  // namespace

std::unique_ptr<DecodeStage> MakeCollectStage(std::string* out) {
  return std::make_unique<CollectStage>(out);
}
std::unique_ptr<DecodeStage> MakeJoinStage(DecodeStage* next) {
  return std::make_unique<JoinStage>(next);
}
std::unique_ptr<DecodeStage> MakeWholeStage(DecodeStage* next) {
  return std::make_unique<WholeStage>(next);
}

std::unique_ptr<DecodeStage> MakeStage(const Decoder::Step& step, bool fused, DecodeStage* next) {
  switch (step.spec.kind) {
    case Kind::kByteLevel:
      return std::make_unique<ByteLevelStage>(next);
    case Kind::kByteFallback:
      return std::make_unique<ByteFallbackStage>(next);
    case Kind::kFuse:
      break;
    case Kind::kReplace:
      return std::make_unique<ReplaceStage>(step, next);
    case Kind::kStrip:
      if (fused) return std::make_unique<StripTextStage>(step.spec, next);
      return std::make_unique<StripStage>(step.spec, next);
    case Kind::kMetaspace:
      return std::make_unique<MetaspaceStage>(step.spec, next);
  }
  return std::make_unique<FuseStage>(next);
}

bool Fuses(const DecoderSpec& spec) {
  return spec.kind == Kind::kFuse || spec.kind == Kind::kByteLevel;
}

bool WorksOnParts(const DecoderSpec& spec) {
  return spec.kind == Kind::kFuse || spec.kind == Kind::kStrip;
}

}  // namespace switchyard::worker::tokenizer
