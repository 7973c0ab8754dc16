#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "common/clock.h"
#include "common/executor.h"
#include "switchyard/v1/worker.pb.h"
#include "worker/engine/engine.h"
#include "worker/generation.h"
#include "worker/opened_model.h"
#include "worker/outbox.h"

namespace switchyard::worker {

// Every request from Submit to its last message. Validates on threads of its own, without an
// engine; what is valid waits here until there is one.
class Requests {
 public:
  Requests(const OpenedModel& model, const Clock& clock, Outbox& outbox);
  ~Requests() { Stop(); }

  // Commands; none of them blocks.
  void Submit(v1::Submit command);
  void Cancel(RequestId id);
  void Suspend(RequestId id, bool suspended);
  void Tokenize(v1::Tokenize command);
  void Detokenize(v1::Detokenize command);

  // The engine takes over what waits; it must live until Detach or Stop.
  void Attach(Engine* engine);
  // False, and nothing changes, while the engine has sequences.
  bool Detach();
  // From the engine's thread, with its figures after them.
  void OnEvents(const std::vector<SequenceEvent>& events, const EngineStats& stats);

  // Requests that are valid and wait for an engine.
  uint32_t waiting() const;
  // Deadlines that are watched for them.
  size_t watched() const { return timer_.size(); }
  // Forgets everything without an answer; the engine may go afterwards.
  void Stop();

 private:
  enum class Stage : uint8_t { kValidating, kWaiting, kRunning };
  struct Request {
    Stage stage = Stage::kValidating;
    Nanos arrived = 0;
    Nanos deadline = 0;       // 0: none
    Nanos patient_until = 0;  // as in SequenceRequest
    uint64_t place = 0;       // kWaiting: in waiting_
    Executor::Ticket expiry;  // kWaiting with a deadline: of timer_
    bool suspended = false;
    bool cancelled = false;                  // while it is validated
    SequenceRequest sequence;                // kWaiting
    std::unique_ptr<Generation> generation;  // from kWaiting on
  };

  void Validate(const v1::Submit& command);
  void Admit(RequestId id, absl::StatusOr<ValidRequest> valid);
  void Start(RequestId id, Request& request);
  void ExpireWaiting(RequestId id);
  void StopWaiting(Request& request);
  void Reject(RequestId id, const absl::Status& status);  // and forgets it

  const OpenedModel& model_;
  const Clock& clock_;
  Outbox& outbox_;

  mutable std::mutex mutex_;
  std::unordered_map<RequestId, Request> requests_;
  std::map<uint64_t, RequestId> waiting_;  // in order of validation
  uint64_t places_ = 0;
  Engine* engine_ = nullptr;
  uint32_t running_ = 0;
  bool stopped_ = false;

  Executor validators_;
  Executor timer_;  // deadlines of what waits: the engine keeps the others
};

}  // namespace switchyard::worker
