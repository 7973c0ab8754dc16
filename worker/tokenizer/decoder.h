#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/tokenizer/regex.h"
#include "worker/tokenizer/spec.h"

namespace switchyard::worker::tokenizer {

class DecodeStage;

// Turns tokens back into text. Const methods may be called from many threads.
class Decoder {
 public:
  // INVALID_ARGUMENT if a pattern does not compile.
  static absl::StatusOr<Decoder> Make(bool has_decoder, std::vector<DecoderSpec> steps);

  struct Step {
    DecoderSpec spec;
    std::optional<Regex> pattern;
  };
  const std::vector<Step>& steps() const { return steps_; }
  bool has_decoder() const { return has_decoder_; }

 private:
  bool has_decoder_ = false;
  std::vector<Step> steps_;
};

// The decoding of one sequence, token by token. Text comes out as soon as no later token can change
// it, and always in whole characters; decoding everything at once is the same thing done at once.
class DecodeStream {
 public:
  explicit DecodeStream(const Decoder& decoder);  // which must live longer
  DecodeStream(DecodeStream&&) noexcept;
  DecodeStream& operator=(DecodeStream&&) noexcept;
  ~DecodeStream();

  void Push(std::string_view token);
  void Finish();           // nothing may be pushed after it
  std::string TakeText();  // what came out since the last call

 private:
  std::unique_ptr<std::string> out_;
  std::vector<std::unique_ptr<DecodeStage>> stages_;  // each pushes into the next
};

}  // namespace switchyard::worker::tokenizer
