#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/device/host_buffer.h"
#include "worker/engine/engine.h"
#include "worker/engine/kv_cache.h"

namespace switchyard::worker {

enum class SequenceState : uint8_t {
  kWaiting,  // accepted, has nothing on the device
  kRunning,  // has a slot and blocks: prefill while more than one token is not computed, then
             // decode
  kPaused,   // was running; its KV is in host memory, or will be computed again
  kEnded,    // its last event has been made; steps in flight may still carry its rows
};

// The KV blocks of a paused sequence, packed: group by group, block by block.
struct PausedKv {
  std::unique_ptr<HostBuffer> memory;
  BlockSpans spans;
  uint64_t bytes = 0;
};

// One request's tokens. Positions advance when a step is launched, tokens are appended when it is
// read.
struct Sequence {
  SequenceRequest request;
  uint64_t arrival = 0;
  SequenceState state = SequenceState::kWaiting;
  bool suspended = false;
  int32_t slot = -1;                        // of the token and block tables, while running
  std::vector<int32_t> tokens;              // prompt, then output that has been read
  int32_t computed = 0;                     // positions whose KV launched steps have written
  int32_t drawing = 0;                      // tokens that launched steps draw and nobody has read
  std::vector<TokenResult> prompt_results;  // one a prompt token, if asked for, until delivered
  int32_t prompt_scored = 1;                // prompt tokens whose log-probability has been launched
  std::unique_ptr<PausedKv> paused_kv;      // null while paused: its KV is computed again
  SequenceTimes times;

  int32_t prompt_length() const { return static_cast<int32_t>(request.prompt.size()); }
  int32_t length() const { return static_cast<int32_t>(tokens.size()) + drawing; }
  int32_t most_length() const { return prompt_length() + request.max_tokens; }
  // Its last token has been launched.
  bool complete() const { return length() >= most_length(); }
  bool wants_prompt_scores() const { return request.prompt_logprobs >= 0; }
};

}  // namespace switchyard::worker
