#pragma once

#include <grpcpp/alarm.h>

#include <map>
#include <memory>
#include <mutex>

#include "common/clock.h"
#include "rpc/call_queue.h"

namespace switchyard::supervisor {

class ServerCall;

// Until when a client must have done its part of a call: sent its request, or taken the end of the
// answer. A call that is late is cancelled, which frees its place and what is queued for it.
// Seconds late is soon enough: one timer looks after all of them, and only while there are any.
// From any thread.
class CallDeadlines final : public CallQueue::Operation {
 public:
  ~CallDeadlines() override = default;

  // Replaces what was set for the call, which may end meanwhile: another thread closes it while the
  // queue's hears that its client has gone.
  void Set(CallQueue* queue, ServerCall* call, Nanos from_now);
  void Clear(ServerCall* call);
  // None is kept any more. Before the queue stops.
  void Stop();

 private:
  void End(bool ok) override;
  void Arm(CallQueue* queue, Nanos from_now);

  const SteadyClock clock_;
  std::mutex mutex_;
  struct Deadline {
    Nanos at;
    std::weak_ptr<ServerCall> call;
  };
  std::map<ServerCall*, Deadline> deadlines_;
  CallQueue* queue_ = nullptr;
  grpc::Alarm alarm_;
  bool armed_ = false;
  bool stopped_ = false;
};

}  // namespace switchyard::supervisor
