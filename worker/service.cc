#include "worker/service.h"

#include <fcntl.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "rpc/call_queue.h"
#include "switchyard/v1/worker.grpc.pb.h"

namespace switchyard::worker {
namespace {

// For what is queued when the service stops.
constexpr std::chrono::seconds kDrainTime(1);

}  // namespace

class Service::Impl {
 public:
  explicit Impl(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

  absl::Status Start(UniqueFd connection) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    // Both ends are ours: a prompt may be as large as the supervisor let it be.
    builder.SetMaxReceiveMessageSize(-1);
    builder.SetMaxSendMessageSize(-1);
    // The peer is a process of this machine: there is no bandwidth to probe for.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20);
    queue_ = std::make_unique<CallQueue>(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::InternalError("gRPC did not start");
    const int flags = ::fcntl(connection.get(), F_GETFL);
    if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
      return ErrnoStatus("the supervisor's connection (descriptor 3)");
    }
    stream_ = std::make_shared<Stream>(this, queue_.get());
    stream_->Accept(&service_);
    grpc::AddInsecureChannelFromFd(server_.get(), connection.Release());
    return absl::OkStatus();
  }

  void Listen() {
    std::lock_guard lock(mutex_);
    listening_ = true;
    ReadFirst();
  }

  void Send(v1::FromWorker message) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    waiting_.push_back(std::move(message));
    WriteNext();
  }

  void Stop() {
    if (queue_ == nullptr) return;
    {
      std::unique_lock lock(mutex_);
      ending_ = true;
      FinishIfDrained();
      done_.wait_for(lock, kDrainTime, [this] { return !open_; });
    }
    // Cancels a stream whose peer does not read, and does not wait for the connection's farewell.
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    queue_->Stop();
  }

 private:
  // The one stream; the queue's thread ends its operations. There is no second: a call that another
  // peer could make waits for ever.
  class Stream final : public std::enable_shared_from_this<Stream> {
   public:
    Stream(Impl* impl, CallQueue* queue) : impl_(impl), queue_(queue) {}

    void Accept(v1::Worker::AsyncService* service) {
      context_.AsyncNotifyWhenDone(done_.tag());
      service->RequestServe(&context_, &stream_, queue_->get(), queue_->get(),
                            accepting_.Begin(shared_from_this()));
    }
    void Read() { stream_.Read(&incoming_, reading_.Begin(shared_from_this())); }
    void Write(const v1::FromWorker& message) {
      stream_.Write(message, writing_.Begin(shared_from_this()));
    }
    void Finish() { stream_.Finish(grpc::Status::OK, finishing_.Begin(shared_from_this())); }

   private:
    using Ending = OwnedOperation<Stream>;
    void OnAccepted(bool ok) {
      if (!ok) return;  // the server ends before anybody called
      (void)done_.Begin(shared_from_this());
      impl_->OnOpened();
    }
    void OnRead(bool ok) {
      if (!ok) return impl_->OnClosed();
      impl_->callbacks_.message(std::exchange(incoming_, {}));
      Read();
    }
    void OnWritten(bool ok) { impl_->OnWritten(ok); }
    void OnFinished(bool) {}
    void OnDone(bool) { impl_->OnDone(); }

    Impl* const impl_;
    CallQueue* const queue_;
    grpc::ServerContext context_;
    grpc::ServerAsyncReaderWriter<v1::FromWorker, v1::ToWorker> stream_{&context_};
    v1::ToWorker incoming_;
    Ending accepting_{queue_, &Stream::OnAccepted};
    Ending reading_{queue_, &Stream::OnRead};
    Ending writing_{queue_, &Stream::OnWritten};
    Ending finishing_{queue_, &Stream::OnFinished};
    Ending done_{queue_, &Stream::OnDone};
  };

  void OnOpened() {
    std::lock_guard lock(mutex_);
    open_ = true;
    ReadFirst();
    WriteNext();
    FinishIfDrained();
  }

  void OnWritten(bool ok) {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) {
      ended_ = true;
      waiting_.clear();
    }
    WriteNext();
    FinishIfDrained();
  }

  // Nothing more comes from the supervisor.
  void OnClosed() {
    {
      std::lock_guard lock(mutex_);
      ended_ = ending_ = true;
      waiting_.clear();
      FinishIfDrained();
      if (std::exchange(told_closed_, true)) return;
    }
    callbacks_.closed();
  }

  void OnDone() {
    {
      std::lock_guard lock(mutex_);
      open_ = false;
      done_.notify_all();
    }
    OnClosed();
  }

  // These hold mutex_. One read is under way at a time, and one write.
  void ReadFirst() {
    if (open_ && listening_) stream_->Read();
  }
  void WriteNext() {
    if (!open_ || writing_ || finished_ || waiting_.empty()) return;
    writing_ = true;
    stream_->Write(waiting_.front());
    waiting_.pop_front();  // it is serialized
  }
  void FinishIfDrained() {
    if (!ending_ || writing_ || finished_ || !open_ || !waiting_.empty()) return;
    finished_ = ended_ = true;
    stream_->Finish();
  }

  const Callbacks callbacks_;
  v1::Worker::AsyncService service_;
  std::unique_ptr<CallQueue> queue_;
  std::unique_ptr<grpc::Server> server_;  // goes before its queue
  std::shared_ptr<Stream> stream_;

  std::mutex mutex_;
  std::condition_variable done_;
  std::deque<v1::FromWorker> waiting_;
  bool open_ = false;  // somebody called, and the call has not ended
  bool listening_ = false;
  bool writing_ = false;
  bool ended_ = false;   // nothing is queued any more
  bool ending_ = false;  // finish when nothing waits
  bool finished_ = false;
  bool told_closed_ = false;
};

Service::Service(Callbacks callbacks) : impl_(std::make_unique<Impl>(std::move(callbacks))) {}
Service::~Service() { Stop(); }
absl::Status Service::Start(UniqueFd connection) { return impl_->Start(std::move(connection)); }
void Service::Listen() { impl_->Listen(); }
void Service::Send(v1::FromWorker message) { impl_->Send(std::move(message)); }
void Service::Stop() { impl_->Stop(); }

}  // namespace switchyard::worker
