#pragma once

#include <functional>
#include <memory>

#include "common/unique_fd.h"
#include "rpc/call_queue.h"
#include "supervisor/event_loop.h"
#include "switchyard/v1/worker.pb.h"

namespace switchyard::supervisor {

// The one ordered stream to a worker, over its inherited socket. Always reads; what is sent queues
// here. Used on the event loop, and calls back there.
class WorkerClient {
 public:
  struct Callbacks {
    std::function<void(const switchyard::v1::FromWorker&)> message;
    std::function<void()> closed;  // after the last message
  };
  // A worker that is still starting finds the stream's opening in its socket.
  WorkerClient(EventLoop* loop, CallQueue* queue, UniqueFd connection, Callbacks callbacks);
  // No callback comes after this.
  ~WorkerClient();

  void Send(switchyard::v1::ToWorker message);
  // Gives up what is unread; `closed` follows.
  void Cancel();

 private:
  class Stream;
  std::shared_ptr<Stream> stream_;
};

}  // namespace switchyard::supervisor
