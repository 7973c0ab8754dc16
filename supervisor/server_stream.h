#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "rpc/message_bytes.h"
#include "supervisor/server_call.h"

namespace switchyard::supervisor {

// What became of a message that met another which still waits to be written.
enum class Merged {
  kNo,        // it waits behind
  kAppended,  // the waiting one holds both
  kReplaced,  // the waiting one holds the new one only
};

// The answers of a call, with a queue: Push never blocks. While one message is on its way, those
// that come meanwhile are merged, so that a busy stream costs few writes and a slow client gets the
// newest progress and not its history. From any thread.
template <typename Message>
class StreamCall : public ServerCall::Handler,
                   public std::enable_shared_from_this<StreamCall<Message>> {
 public:
  using Merge = Merged (*)(Message* waiting, Message* next);
  static Merged MergeNothing(Message*, Message*) { return Merged::kNo; }
  static Merged KeepNewest(Message* waiting, Message* next) {
    waiting->Swap(next);
    return Merged::kReplaced;
  }

  // `limit_bytes`: Drained() is called when buffered() has been above it and falls under half of
  // it.
  explicit StreamCall(std::shared_ptr<ServerCall> call, Merge merge = MergeNothing,
                      uint64_t limit_bytes = UINT64_MAX)
      : call_(std::move(call)),
        merge_(merge),
        limit_bytes_(limit_bytes),
        memory_(call_->service().memory) {}

  void Push(Message message) {
    std::lock_guard lock(mutex_);
    PushLocked(std::move(message));
    if (!writing_ && !waiting_.empty()) WriteNext();
  }

  // Ends the stream when everything is written; cuts it off if the client does not take that.
  void Close(grpc::Status status) {
    std::lock_guard lock(mutex_);
    if (closing_ || gone_) return;
    closing_ = std::move(status);
    writing_ ? call_->Closing() : call_->Finish(*closing_);
  }

  // The last message, with a good status, in one piece.
  void PushAndClose(Message message) {
    std::lock_guard lock(mutex_);
    if (closing_ || gone_) return;
    PushLocked(std::move(message));
    closing_ = grpc::Status::OK;
    writing_ ? call_->Closing() : WriteNext();
  }

  // The client has gone, or is as good as gone.
  bool gone() const {
    std::lock_guard lock(mutex_);
    return gone_;
  }

  uint64_t buffered() const {
    std::lock_guard lock(mutex_);
    return buffered_;
  }

  void OnWritten(bool ok) final {
    bool drained = false;
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      buffered_ -= writing_bytes_;
      if (!ok) {
        Forget();  // the connection is gone; OnEnd follows
      } else if (!waiting_.empty()) {
        if (closing_) call_->Closing();
        WriteNext();
      } else if (closing_) {
        call_->Finish(*closing_);
      }
      // Together with Push under one lock: whoever saw buffered() above the limit hears of its
      // fall.
      if (above_limit_ && buffered_ < limit_bytes_ / 2) {
        above_limit_ = false;
        drained = !gone_ && !closing_;
      }
    }
    if (drained) Drained();
  }

  void OnEnd() final {
    bool tell;
    {
      std::lock_guard lock(mutex_);
      tell = !closing_;
      Forget();
    }
    if (tell) Cancelled();
  }

  ServerCall::Service& service() const { return call_->service(); }
  // What the request takes, and perhaps its answer; for whoever has the call in hand.
  RequestMemory::Charge& memory() { return memory_; }

 protected:
  const ServerCall& call() const { return *call_; }
  // On the queue's thread. The client has gone before the stream was closed.
  virtual void Cancelled() {}
  virtual void Drained() {}

 private:
  struct Waiting {
    Message message;
    uint64_t bytes;
  };

  // These hold mutex_.
  void PushLocked(Message message) {
    if (closing_ || gone_) return;
    const uint64_t bytes = message.ByteSizeLong();
    const Merged merged =
        waiting_.empty() ? Merged::kNo : merge_(&waiting_.back().message, &message);
    if (merged == Merged::kNo) {
      waiting_.push_back({std::move(message), bytes});
    } else if (merged == Merged::kAppended) {
      waiting_.back().bytes += bytes;
    } else {
      buffered_ -= waiting_.back().bytes;
      waiting_.back().bytes = bytes;
    }
    buffered_ += bytes;
    if (buffered_ > limit_bytes_) above_limit_ = true;
  }
  void WriteNext() {
    const grpc::ByteBuffer bytes = SerializeMessage(waiting_.front().message);
    writing_bytes_ = waiting_.front().bytes;
    waiting_.pop_front();
    writing_ = true;
    if (closing_ && waiting_.empty()) {
      call_->WriteAndFinish(bytes, *closing_);
    } else {
      call_->Write(bytes);
    }
  }
  void Forget() {
    gone_ = true;
    for (const Waiting& waiting : waiting_) buffered_ -= waiting.bytes;
    waiting_.clear();
  }

  const std::shared_ptr<ServerCall> call_;
  const Merge merge_;
  const uint64_t limit_bytes_;
  RequestMemory::Charge memory_;
  mutable std::mutex mutex_;
  std::deque<Waiting> waiting_;
  uint64_t buffered_ = 0;  // bytes of waiting_ and of what is being written
  uint64_t writing_bytes_ = 0;
  bool writing_ = false;
  bool above_limit_ = false;
  std::optional<grpc::Status> closing_;
  bool gone_ = false;  // nothing can be written any more
};

}  // namespace switchyard::supervisor
