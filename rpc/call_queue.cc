#include "rpc/call_queue.h"

namespace switchyard {

CallQueue::CallQueue(std::unique_ptr<grpc::ServerCompletionQueue> queue)
    : queue_(std::move(queue)), thread_([this] { Run(); }) {}

void* CallQueue::Begin(Operation* operation) {
  under_way_.fetch_add(1, std::memory_order_relaxed);
  return operation;
}

void CallQueue::Stop() {
  if (!thread_.joinable()) return;
  EndOne();
  thread_.join();
}

void CallQueue::Run() {
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
