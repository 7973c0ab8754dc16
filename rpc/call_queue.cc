#include "rpc/call_queue.h"

#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <pthread.h>

namespace switchyard {
namespace {

// Has its time at once, and needs no thread but the queue's for that.
class Task final : public CallQueue::Operation {
 public:
  explicit Task(std::function<void()> task) : task_(std::move(task)) {}
  void Start(CallQueue* queue) {
    alarm_.Set(queue->get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), queue->Begin(this));
  }

 private:
  void End(bool) override {
    const std::unique_ptr<Task> self(this);
    task_();
  }

  const std::function<void()> task_;
  grpc::Alarm alarm_;
};

}  // namespace

CallQueue::CallQueue(std::unique_ptr<grpc::ServerCompletionQueue> queue)
    : queue_(std::move(queue)), thread_([this] { Run(); }) {}

void* CallQueue::Begin(Operation* operation) {
  under_way_.fetch_add(1, std::memory_order_relaxed);
  return operation;
}

void CallQueue::Post(std::function<void()> task) { (new Task(std::move(task)))->Start(this); }

void CallQueue::Stop() {
  if (!thread_.joinable()) return;
  EndOne();
  thread_.join();
}

void CallQueue::Run() {
  ::pthread_setname_np(::pthread_self(), "calls");
  void* tag;
  bool ok;
  while (queue_->Next(&tag, &ok)) {
    static_cast<Operation*>(tag)->End(ok);
    EndOne();
  }
}

void CallQueue::EndOne() {
  if (under_way_.fetch_sub(1, std::memory_order_acq_rel) == 1) queue_->Shutdown();
}

}  // namespace switchyard
