#include "worker/service.h"

#include <fcntl.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>

#include <chrono>
#include <condition_variable>
#include <utility>

#include "switchyard/v1/worker.grpc.pb.h"

namespace switchyard::worker {
namespace {

// For what is queued when the service stops.
constexpr std::chrono::seconds kDrainTime(1);

}  // namespace

class Service::Impl final : public v1::Worker::CallbackService {
 public:
  explicit Impl(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

  absl::Status Start(UniqueFd connection) {
    grpc::ServerBuilder builder;
    builder.RegisterService(this);
    // Both ends are ours: a prompt may be as large as the supervisor let it be.
    builder.SetMaxReceiveMessageSize(-1);
    builder.SetMaxSendMessageSize(-1);
    // The peer is a process of this machine: there is no bandwidth to probe for.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::InternalError("gRPC did not start");
    const int flags = ::fcntl(connection.get(), F_GETFL);
    if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
      return ErrnoStatus("the supervisor's connection (descriptor 3)");
    }
    grpc::AddInsecureChannelFromFd(server_.get(), connection.Release());
    return absl::OkStatus();
  }

  void Send(v1::FromWorker message) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    queue_.push_back(std::move(message));
    WriteNext();
  }

  void Stop() {
    {
      std::unique_lock lock(mutex_);
      ending_ = true;
      FinishIfDrained();
      done_.wait_for(lock, kDrainTime, [this] { return stream_ == nullptr || stream_done_; });
    }
    // Cancels a stream whose peer does not read, and does not wait for the connection's farewell.
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }

  grpc::ServerBidiReactor<v1::ToWorker, v1::FromWorker>* Serve(
      grpc::CallbackServerContext* context) override {
    std::lock_guard lock(mutex_);
    if (stream_ != nullptr || ended_) return new Refusal;
    stream_ = new Stream(this);
    stream_->Read();
    WriteNext();
    return stream_;
  }

 private:
  class Refusal final : public grpc::ServerBidiReactor<v1::ToWorker, v1::FromWorker> {
   public:
    Refusal() { Finish({grpc::StatusCode::FAILED_PRECONDITION, "the worker has its supervisor"}); }
    void OnDone() override { delete this; }
  };

  class Stream final : public grpc::ServerBidiReactor<v1::ToWorker, v1::FromWorker> {
   public:
    explicit Stream(Impl* impl) : impl_(impl) {}
    void Read() { StartRead(&incoming_); }
    void OnReadDone(bool ok) override {
      if (!ok) return impl_->OnClosed();
      impl_->callbacks_.message(incoming_);
      Read();
    }
    void OnWriteDone(bool ok) override { impl_->OnWritten(ok); }
    void OnCancel() override { impl_->OnClosed(); }
    void OnDone() override {
      impl_->OnStreamDone();
      delete this;
    }

   private:
    Impl* const impl_;
    v1::ToWorker incoming_;
  };

  // One write is in flight at a time: the front of the queue.
  void WriteNext() {
    if (stream_ == nullptr || writing_ || finished_ || queue_.empty()) return;
    writing_ = true;
    stream_->StartWrite(&queue_.front());
  }

  void OnWritten(bool ok) {
    std::lock_guard lock(mutex_);
    writing_ = false;
    queue_.pop_front();
    if (!ok) {
      ended_ = true;
      queue_.clear();
    }
    WriteNext();
    FinishIfDrained();
  }

  void OnClosed() {
    {
      std::lock_guard lock(mutex_);
      ended_ = ending_ = true;
      // The front belongs to the write in flight.
      while (queue_.size() > (writing_ ? 1 : 0)) queue_.pop_back();
      FinishIfDrained();
      if (std::exchange(told_closed_, true)) return;
    }
    callbacks_.closed();
  }

  void OnStreamDone() {
    std::lock_guard lock(mutex_);
    stream_done_ = true;
    done_.notify_all();
  }

  void FinishIfDrained() {
    if (!ending_ || writing_ || finished_ || stream_ == nullptr || !queue_.empty()) return;
    finished_ = ended_ = true;
    stream_->Finish(grpc::Status::OK);
  }

  const Callbacks callbacks_;
  std::unique_ptr<grpc::Server> server_;

  std::mutex mutex_;
  std::condition_variable done_;
  Stream* stream_ = nullptr;  // deletes itself after Finish
  std::deque<v1::FromWorker> queue_;
  bool writing_ = false;
  bool ended_ = false;   // nothing is queued any more
  bool ending_ = false;  // finish when the queue is empty
  bool finished_ = false;
  bool stream_done_ = false;
  bool told_closed_ = false;
};

Service::Service(Callbacks callbacks) : impl_(std::make_unique<Impl>(std::move(callbacks))) {}
Service::~Service() { Stop(); }
absl::Status Service::Start(UniqueFd connection) { return impl_->Start(std::move(connection)); }
void Service::Send(v1::FromWorker message) { impl_->Send(std::move(message)); }
void Service::Stop() { impl_->Stop(); }

}  // namespace switchyard::worker
