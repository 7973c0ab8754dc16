#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "switchyard/v1/inference.pb.h"
#include "worker/engine/engine.h"
#include "worker/stop_strings.h"
#include "worker/tokenizer/tokenizer.h"

namespace switchyard::worker {

// One request's way from the engine's tokens to the client's events: text, stop strings, what the
// first and the last event hold. One thread at a time.
class Generation {
 public:
  struct Options {
    std::string model;
    std::vector<int32_t> prompt;
    bool prompt_logprobs = false;
    bool logprobs = false;
    std::vector<int32_t> stop_ids;  // sorted; such a token is not part of the output
    std::vector<std::string> stop;
    uint64_t seed = 0;
    Nanos arrived = 0;
  };
  // The tokenizer must live longer.
  Generation(const Tokenizer& tokenizer, Options options);

  struct Outcome {
    bool has_event = false;
    v1::GenerateEvent event;     // with `finish`: the last
    bool finish_engine = false;  // a stop string was met: tell the engine
    bool ended = false;
    absl::Status rejected;  // ended without a finish
  };
  Outcome OnEvent(const SequenceEvent& event);

 private:
  void AddStart(const SequenceEvent& event, v1::GenerateEvent& out);
  void AddTokens(const SequenceEvent& event, v1::GenerateEvent& out);
  void AddFinish(const SequenceEvent& event, v1::GenerateEvent& out);

  Options options_;
  StreamingDecoder decoder_;
  StopMatcher matcher_;
  bool started_ = false;
  bool finishing_ = false;  // the engine was told
  uint32_t completion_tokens_ = 0;
};

}  // namespace switchyard::worker
