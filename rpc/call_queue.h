#pragma once

#include <grpcpp/completion_queue.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

namespace switchyard {

// The completion queue of every RPC of a process, and the one thread that polls it: what the thread
// finds in a socket it also parses, handles and sends on. With gRPC's callback API two more threads
// had to be woken for that, each way. Nothing may bring a second poller into the process (a
// callback or synchronous service, ours or one of gRPC's): gRPC 1.51 lets only one thread look at
// the sockets, which then would have to hand events over.
class CallQueue {
 public:
  // What gRPC does for us meanwhile. The queue's thread calls End.
  class Operation {
   public:
    virtual ~Operation() = default;

   private:
    friend class CallQueue;
    virtual void End(bool ok) = 0;
  };

  explicit CallQueue(std::unique_ptr<grpc::ServerCompletionQueue> queue);
  ~CallQueue() { Stop(); }

  grpc::ServerCompletionQueue* get() const { return queue_.get(); }

  // Returns the tag of an operation that is begun now. From any thread, by whoever has another one
  // under way or is before Stop.
  void* Begin(Operation* operation);

  // Runs `task` on the queue's thread, soon: as soon as that has done with what it does. Whoever
  // may Begin may call it.
  void Post(std::function<void()> task);

  // Waits until nothing is under way, and ends the thread. Calls must have been told to end.
  void Stop();

 private:
  void Run();
  void EndOne();

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::atomic<int64_t> under_way_ = 1;  // operations, and 1 until Stop
  std::thread thread_;
};

// An operation whose end is told to a method of its owner, and which keeps the owner alive until
// then. One at a time.
template <typename Owner>
class OwnedOperation final : public CallQueue::Operation {
 public:
  OwnedOperation(CallQueue* queue, void (Owner::*ended)(bool)) : queue_(queue), ended_(ended) {}

  void* tag() { return static_cast<CallQueue::Operation*>(this); }
  // Returns the tag.
  void* Begin(std::shared_ptr<Owner> owner) {
    owner_ = std::move(owner);
    return queue_->Begin(this);
  }

 private:
  void End(bool ok) override {
    const std::shared_ptr<Owner> owner = std::move(owner_);
    (owner.get()->*ended_)(ok);
  }

  CallQueue* const queue_;
  void (Owner::*const ended_)(bool);
  std::shared_ptr<Owner> owner_;
};

}  // namespace switchyard
