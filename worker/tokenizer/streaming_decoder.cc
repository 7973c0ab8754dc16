#include <utility>

#include "worker/tokenizer/tokenizer_parts.h"

namespace switchyard::worker {

struct StreamingDecoder::State {
  const Tokenizer::Parts& parts;
  bool skip_special_tokens;
  tokenizer::DecodeStream stream;
};

StreamingDecoder::StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : state_(new State{*tokenizer.parts_, skip_special_tokens,
                       tokenizer::DecodeStream(tokenizer.parts_->decoder)}) {}
StreamingDecoder::StreamingDecoder(StreamingDecoder&&) noexcept = default;
StreamingDecoder& StreamingDecoder::operator=(StreamingDecoder&&) noexcept = default;
StreamingDecoder::~StreamingDecoder() = default;

std::string StreamingDecoder::Push(int32_t id) {
  const std::string* token = state_->parts.TokenOf(id);
  if (token == nullptr) return "";
  if (state_->skip_special_tokens && state_->parts.added.IsSpecial(id)) return "";
  state_->stream.Push(*token);
  return state_->stream.TakeText();
}

std::string StreamingDecoder::Finish() {
  state_->stream.Finish();
  return state_->stream.TakeText();
}

}  // namespace switchyard::worker
