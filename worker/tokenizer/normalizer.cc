#include "worker/tokenizer/normalizer.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/tokenizer/unicode.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

absl::Status TooLong(size_t bytes) {
  return absl::InvalidArgumentError(absl::StrCat("the text becomes longer than ", bytes,
                                                 " bytes when it is normalized, at most ",
                                                 kMaxTextBytes));
}

void Strip(bool left, bool right, std::string* text) {
  size_t begin = 0, end = text->size();
  while (left && begin < end) {
    size_t next = begin;
    if (!IsWhiteSpace(DecodeUtf8(*text, &next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t next = end;
    if (!IsWhiteSpace(DecodeUtf8Backward(*text, &next))) break;
    end = next;
  }
  *text = text->substr(begin, end - begin);
}

void StripAccents(std::string* text) {
  std::string out;
  for (size_t pos = 0; pos < text->size();) {
    const char32_t c = DecodeUtf8(*text, &pos);
    if (!IsMark(c)) AppendUtf8(c, &out);
  }
  *text = std::move(out);
}

void Lowercase(std::string* text) {
  std::string out;
  out.reserve(text->size());
  for (size_t pos = 0; pos < text->size();) AppendLowercase(DecodeUtf8(*text, &pos), &out);
  *text = std::move(out);
}

}  // namespace

absl::Status ReplaceAll(const Regex& pattern, const std::string& content, std::string* text) {
  std::string out;
  size_t copied = 0;
  bool too_long = false;
  RETURN_IF_ERROR(pattern.ForEachMatch(*text, [&](size_t begin, size_t end) {
    too_long = too_long || out.size() + content.size() + (begin - copied) > kMaxTextBytes;
    if (too_long) return;
    out.append(*text, copied, begin - copied);
    out += content;
    copied = end;
  }));
  if (too_long || out.size() + (text->size() - copied) > kMaxTextBytes) return TooLong(out.size());
  if (copied == 0 && out.empty()) return absl::OkStatus();
  out.append(*text, copied, text->size() - copied);
  *text = std::move(out);
  return absl::OkStatus();
}

absl::StatusOr<Normalizer> Normalizer::Make(std::vector<NormalizerSpec> steps) {
  Normalizer normalizer;
  for (NormalizerSpec& spec : steps) {
    Step step;
    step.spec = std::move(spec);
    if (step.spec.kind == NormalizerSpec::Kind::kReplace) {
      ASSIGN_OR_RETURN(step.pattern, Regex::Compile(step.spec.pattern));
    }
    normalizer.steps_.push_back(std::move(step));
  }
  return normalizer;
}

absl::Status Normalizer::Apply(std::string* text) const {
  using Kind = NormalizerSpec::Kind;
  for (const Step& step : steps_) {
    switch (step.spec.kind) {
      case Kind::kNfc:
        *text = NormalizeUnicode(*text, NormalForm::kNfc);
        break;
      case Kind::kNfd:
        *text = NormalizeUnicode(*text, NormalForm::kNfd);
        break;
      case Kind::kNfkc:
        *text = NormalizeUnicode(*text, NormalForm::kNfkc);
        break;
      case Kind::kNfkd:
        *text = NormalizeUnicode(*text, NormalForm::kNfkd);
        break;
      case Kind::kLowercase:
        Lowercase(text);
        break;
      case Kind::kStrip:
        Strip(step.spec.strip_left, step.spec.strip_right, text);
        break;
      case Kind::kStripAccents:
        StripAccents(text);
        break;
      case Kind::kPrepend:
        if (!text->empty()) text->insert(0, step.spec.content);
        break;
      case Kind::kReplace:
        RETURN_IF_ERROR(ReplaceAll(*step.pattern, step.spec.content, text));
        break;
    }
    if (text->size() > kMaxTextBytes) return TooLong(text->size());
  }
  return absl::OkStatus();
}

}  // namespace switchyard::worker::tokenizer
