#pragma once

// The step loop: continuous batching over paged KV within a lease. Knows no text and no protobuf.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "kernels/ops.h"
#include "worker/device/device.h"
#include "worker/device/weight_source.h"
#include "worker/engine/kv_layout.h"
#include "worker/model/architecture.h"
#include "worker/model/image.h"

namespace switchyard::worker {

using RequestId = uint64_t;

struct SamplingParams {
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;
};

// A validated request: prompt within the vocabulary and the context, at least one token.
struct SequenceRequest {
  RequestId id = 0;
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  int32_t max_tokens = 0;         // at least 1; prompt + max_tokens <= context_length
  std::vector<int32_t> stop_ids;  // end-of-sequence and stop ids; the id is reported, then STOP
  int32_t logprobs = -1;          // alternatives; -1: no log-probabilities
  int32_t prompt_logprobs = -1;
  int32_t priority = 0;
  Nanos patient_until = 0;  // then it has waited for long enough: see WaitingQueue; 0: never
  Nanos deadline = 0;       // 0: none
};

struct TokenResult {
  int32_t id = 0;
  float logprob = 0;  // if asked for
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
};

enum class SequenceEnd : uint8_t {
  kNone,
  kLength,
  kStop,
  kCancelled,
  kDeadline,
  kError,
  kNotNumbers,  // a row of its logits was no answer: see kernels::kNotNumbers
};

struct SequenceTimes {
  Nanos submitted = 0, prefill_started = 0, first_token = 0, last_token = 0;
};

// What one step, or one command, brought about for one sequence.
struct SequenceEvent {
  RequestId id = 0;
  // Log-probabilities of the prompt, complete, with the first token: one a prompt token, of which
  // the first says nothing but its id.
  std::vector<TokenResult> prompt;
  std::vector<TokenResult> tokens;
  bool paused = false, resumed = false;
  SequenceEnd end = SequenceEnd::kNone;  // not kNone: the last event of this sequence
  std::string error;                     // kError
  SequenceTimes times;                   // with `end`
};

struct LeaseTarget {
  uint64_t epoch = 0;
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  bool pause = false;  // else sequences drain before weights or their KV go
  // Host memory granted for paused KV until this has settled, then what is held of it; beyond that
  // KV is computed again. The supervisor grants some with `pause` alone: what is paused because
  // blocks or slots have run out is computed again.
  uint64_t host_kv_bytes = 0;
  // Who is paused drains, too: it comes back, since the worker is about to end.
  bool finish = false;
};

struct LeaseReport {
  uint64_t epoch = 0;
  uint64_t weight_bytes = 0;  // really held, a chunk that is being copied included
  uint64_t kv_bytes = 0;      // may be used: its granules are committed when they are needed
  bool settled = false;
  std::string error;
  bool host_short = false;  // that is for want of the host's memory
  uint64_t host_kv_bytes = 0;
  int32_t running = 0, paused = 0, waiting = 0;
};

struct EngineStats {
  uint64_t steps = 0, tokens = 0;
  Nanos step_started = 0;  // 0: no step is running
  Nanos step_predicted = 0;
  Nanos busy = 0;  // a step was running for so long, the one that runs now included
  int32_t running = 0, waiting = 0, paused = 0;
  uint64_t kv_blocks_used = 0, kv_blocks_total = 0;
};

struct EngineLimits {
  int32_t context_length = 0;
  int32_t max_sequences = 8;
  int32_t prefill_chunk = 256;  // chunk borders at absolute multiples of it
  int32_t step_rows = 0;        // most rows of a step; 0: prefill_chunk + max_sequences
  int32_t logit_rows = 64;      // logits are computed in tiles of this many rows
  // Steps that may be launched before the one before has been read: 1 keeps a GPU busy, and stop
  // ids take effect one step late; 0 delivers each step's tokens at once.
  int32_t launch_ahead = 1;
  bool graphs = true;  // decode steps as graphs, on a device that has them; the output is the same
  kernels::DType kv_dtype = kernels::DType::kF32;
  bool quantized = false;  // HasQuantizedMatrix of the image: scratch where those become bf16
};

// Where events go. Called on the engine's thread.
class EngineSink {
 public:
  virtual ~EngineSink() = default;
  virtual void OnEvents(std::vector<SequenceEvent> events) = 0;
  virtual void OnLease(const LeaseReport& report) = 0;
};

// Fixed bytes that an engine of this shape allocates: activations, scratch, tables and step buffers
// on the device, and on the host what is copied to and from them.
struct EngineBytes {
  uint64_t device = 0, host = 0;
};
EngineBytes FixedBytesOf(const Architecture& arch, const kernels::Ops& ops,
                         const EngineLimits& limits);

class Engine {
 public:
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const Architecture& arch,
                                                        const ImageLayout& image,
                                                        const EngineLimits& limits, Device& device,
                                                        kernels::Ops& ops, const Clock& clock,
                                                        EngineSink& sink);
  virtual ~Engine() = default;

  // From any thread; carried out between steps, in order.
  virtual void Submit(SequenceRequest request) = 0;
  virtual void Cancel(RequestId id) = 0;  // ends with kCancelled
  virtual void Finish(RequestId id) = 0;  // ends with kStop: a stop string was met
  virtual void Suspend(RequestId id, bool suspended) = 0;
  virtual void SetLease(const LeaseTarget& target) = 0;
  // What weights are copied from. Takes effect at once: when it returns, nothing reads from the old
  // one. Null: dropped.
  virtual void SetSource(std::shared_ptr<WeightSource> source) = 0;
  virtual EngineStats Stats() const = 0;  // from any thread, never blocks

  // One iteration: commands, lease work, at most one step. True if there may be more to do at once.
  // Tests call it; Run calls it in a loop and sleeps between commands when there is nothing to do.
  virtual bool Iterate() = 0;
  virtual void Run() = 0;   // until Stop
  virtual void Stop() = 0;  // from any thread
};

}  // namespace switchyard::worker
