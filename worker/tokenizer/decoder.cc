#include "worker/tokenizer/decoder.h"

#include <algorithm>
#include <utility>

#include "common/status_macros.h"
#include "worker/tokenizer/decode_stages.h"

namespace switchyard::worker::tokenizer {

absl::StatusOr<Decoder> Decoder::Make(bool has_decoder, std::vector<DecoderSpec> steps) {
  Decoder decoder;
  decoder.has_decoder_ = has_decoder;
  for (DecoderSpec& spec : steps) {
    Step step;
    if (spec.kind == DecoderSpec::Kind::kReplace) {
      ASSIGN_OR_RETURN(step.pattern, Regex::Compile(spec.pattern));
    }
    step.spec = std::move(spec);
    decoder.steps_.push_back(std::move(step));
  }
  return decoder;
}

DecodeStream::DecodeStream(const Decoder& decoder) : out_(std::make_unique<std::string>()) {
  // Where the text is one already, a step that cannot work on parts gets it whole.
  const std::vector<Decoder::Step>& steps = decoder.steps();
  std::vector<bool> fused(steps.size());
  bool text_is_one = false;
  for (size_t i = 0; i < steps.size(); ++i) {
    fused[i] = text_is_one;
    text_is_one = text_is_one || Fuses(steps[i].spec);
  }
  // Built from the last step to the first, since each holds the next.
  stages_.push_back(MakeCollectStage(out_.get()));
  if (!decoder.has_decoder()) stages_.push_back(MakeJoinStage(stages_.back().get()));
  for (size_t i = steps.size(); i-- > 0;) {
    stages_.push_back(MakeStage(steps[i], fused[i], stages_.back().get()));
    if (fused[i] && !WorksOnParts(steps[i].spec)) {
      stages_.push_back(MakeWholeStage(stages_.back().get()));
    }
  }
}

DecodeStream::DecodeStream(DecodeStream&&) noexcept = default;
DecodeStream& DecodeStream::operator=(DecodeStream&&) noexcept = default;
DecodeStream::~DecodeStream() = default;

void DecodeStream::Push(std::string_view token) { stages_.back()->Push(token); }
void DecodeStream::Finish() { stages_.back()->Finish(); }
std::string DecodeStream::TakeText() { return std::exchange(*out_, std::string()); }

}  // namespace switchyard::worker::tokenizer
