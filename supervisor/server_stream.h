#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "supervisor/server_call.h"

namespace switchyard::supervisor {

// What became of a message that met another which still waits to be written.
enum class Merged {
  kNo,        // it waits behind
  kAppended,  // the waiting one holds both
  kReplaced,  // the waiting one holds the new one only
};

// A server-streaming RPC with a queue: Push never blocks. While one message is on its way, those
// that come meanwhile are merged, so that a busy stream costs few writes and a slow client gets the
// newest progress and not its history.
template <typename Message>
class StreamCall : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                   public std::enable_shared_from_this<StreamCall<Message>> {
 public:
  using Merge = Merged (*)(Message* waiting, Message* next);
  // `limit_bytes`: Drained() is called when buffered() has been above it and falls under half of
  // it.
  explicit StreamCall(Merge merge, uint64_t limit_bytes = UINT64_MAX)
      : merge_(merge), limit_bytes_(limit_bytes) {}

  // Keeps the object alive until gRPC is done with it. Right after it was made.
  void Open() { self_ = this->shared_from_this(); }

  void Push(Message message) {
    std::lock_guard lock(mutex_);
    if (closing_ || cancelled_) return;
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
    if (!writing_) WriteNext();
  }

  // Ends the stream when everything is written.
  void Close(grpc::Status status) {
    std::lock_guard lock(mutex_);
    if (closing_ || cancelled_) return;
    closing_ = std::move(status);
    if (!writing_) FinishOnce(*closing_);
  }

  uint64_t buffered() const {
    std::lock_guard lock(mutex_);
    return buffered_;
  }

  void OnWriteDone(bool ok) override {
    bool drained = false;
    {
      std::lock_guard lock(mutex_);
      writing_ = false;
      buffered_ -= writing_bytes_;
      if (cancelled_) {
        FinishOnce(grpc::Status::CANCELLED);
      } else if (!ok || (waiting_.empty() && closing_)) {
        // A write that failed: the connection is gone, OnCancel comes as well.
        FinishOnce(closing_ ? *closing_ : grpc::Status::CANCELLED);
      } else if (!waiting_.empty()) {
        WriteNext();
      }
      // Together with Push under one lock: whoever saw buffered() above the limit hears of its
      // fall.
      if (above_limit_ && buffered_ < limit_bytes_ / 2) {
        above_limit_ = false;
        drained = !cancelled_ && !closing_;
      }
    }
    if (drained) Drained();
  }

  void OnCancel() override {
    bool told;
    {
      std::lock_guard lock(mutex_);
      told = !cancelled_ && !closing_;
      cancelled_ = true;
      for (const Waiting& waiting : waiting_) buffered_ -= waiting.bytes;
      waiting_.clear();
      if (!writing_) FinishOnce(grpc::Status::CANCELLED);
    }
    if (told) Cancelled();
  }

  void OnDone() override { std::shared_ptr<StreamCall>(std::move(self_)); }

 protected:
  // On gRPC's threads. The client has gone before the stream was closed.
  virtual void Cancelled() {}
  virtual void Drained() {}

 private:
  struct Waiting {
    Message message;
    uint64_t bytes;
  };

  // These hold mutex_.
  void WriteNext() {
    buffer_.Clear();
    Serialize(waiting_.front().message, &buffer_);
    writing_bytes_ = waiting_.front().bytes;
    waiting_.pop_front();
    writing_ = true;
    StartWrite(&buffer_);
  }
  void FinishOnce(const grpc::Status& status) {
    if (std::exchange(finished_, true)) return;
    Finish(status);
  }

  const Merge merge_;
  const uint64_t limit_bytes_;
  std::shared_ptr<StreamCall> self_;
  mutable std::mutex mutex_;
  std::deque<Waiting> waiting_;
  uint64_t buffered_ = 0;    // bytes of waiting_ and of what is being written
  grpc::ByteBuffer buffer_;  // being written
  uint64_t writing_bytes_ = 0;
  bool writing_ = false;
  bool above_limit_ = false;
  std::optional<grpc::Status> closing_;
  bool cancelled_ = false;
  bool finished_ = false;
};

}  // namespace switchyard::supervisor
