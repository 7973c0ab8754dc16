#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "worker/tokenizer/decoder.h"

namespace switchyard::worker::tokenizer {

// One step of a decode stream. A step before the text is fused sees tokens, one a Push. Behind
// that point there is one text, which arrives in parts: there only steps that can work on parts are
// used as they are, and the others get it whole, at the end (MakeWholeStage).
class DecodeStage {
 public:
  explicit DecodeStage(DecodeStage* next) : next_(next) {}
  virtual ~DecodeStage() = default;
  virtual void Push(std::string_view piece) = 0;
  virtual void Finish() { next_->Finish(); }

 protected:
  DecodeStage* const next_;
};

// The end of every chain: collects the text.
std::unique_ptr<DecodeStage> MakeCollectStage(std::string* out);
// For a tokenizer without a decoder: a space between two tokens.
std::unique_ptr<DecodeStage> MakeJoinStage(DecodeStage* next);
// Holds everything back and passes it on whole.
std::unique_ptr<DecodeStage> MakeWholeStage(DecodeStage* next);
// The step that a decoder asks for; `fused`: it sees parts of one text.
std::unique_ptr<DecodeStage> MakeStage(const Decoder::Step& step, bool fused, DecodeStage* next);
// What the step passes on is parts of one text, whatever it sees.
bool Fuses(const DecoderSpec& spec);
// The step can work on parts of one text.
bool WorksOnParts(const DecoderSpec& spec);

}  // namespace switchyard::worker::tokenizer
