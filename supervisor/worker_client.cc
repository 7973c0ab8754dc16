#include "supervisor/worker_client.h"

#include <grpcpp/create_channel_posix.h>
#include <grpcpp/support/channel_arguments.h>

#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "switchyard/v1/worker.grpc.pb.h"

namespace switchyard::supervisor {
namespace v1 = ::switchyard::v1;
namespace {

std::shared_ptr<grpc::Channel> Connect(UniqueFd connection) {
  grpc::ChannelArguments arguments;
  // Both ends are ours, and a logprobs step of many sequences is large.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // The peer is a process of this machine: there is no bandwidth to probe for.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20);
  return grpc::CreateCustomInsecureChannelFromFd("worker", connection.Release(), arguments);
}

}  // namespace

// Lives until gRPC's OnDone, however long its WorkerClient does.
class WorkerClient::Stream final : public grpc::ClientBidiReactor<v1::ToWorker, v1::FromWorker>,
                                   public std::enable_shared_from_this<WorkerClient::Stream> {
 public:
  Stream(EventLoop* loop, UniqueFd connection, Callbacks callbacks)
      : loop_(loop),
        callbacks_(std::move(callbacks)),
        channel_(Connect(std::move(connection))),
        stub_(v1::Worker::NewStub(channel_)) {}

  void Open() {
    self_ = shared_from_this();
    stub_->async()->Serve(&context_, this);
    AddHold();  // Send writes from outside of gRPC's callbacks
    Read();
    StartCall();
  }

  void Send(v1::ToWorker message) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) StartWrite(&queue_.front());
  }

  void Cancel() { context_.TryCancel(); }
  void Detach() { attached_ = false; }  // on the loop only, as are the callbacks

  // A read that fails is the last event of every stream. Once nobody writes any more, gRPC may let
  // go of it.
  void OnReadDone(bool ok) override {
    if (!ok) {
      {
        std::lock_guard lock(mutex_);
        ended_ = true;
      }
      RemoveHold();
      return;
    }
    loop_->Dispatch([self = shared_from_this(), message = std::move(incoming_)] {
      if (self->attached_) self->callbacks_.message(*message);
    });
    Read();
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    queue_.pop_front();
    if (!ok) queue_.clear();
    if (!queue_.empty()) StartWrite(&queue_.front());
  }

  void OnDone(const grpc::Status& status) override {
    loop_->Dispatch([self = std::move(self_)] {
      if (self->attached_) self->callbacks_.closed();
    });
  }

 private:
  void Read() {
    incoming_ = std::make_unique<v1::FromWorker>();
    StartRead(incoming_.get());
  }

  EventLoop* const loop_;
  const Callbacks callbacks_;
  bool attached_ = true;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Worker::Stub> stub_;
  grpc::ClientContext context_;
  std::shared_ptr<Stream> self_;
  std::unique_ptr<v1::FromWorker> incoming_;

  std::mutex mutex_;
  std::deque<v1::ToWorker> queue_;  // the front is being written
  bool ended_ = false;
};

WorkerClient::WorkerClient(EventLoop* loop, UniqueFd connection, Callbacks callbacks)
    : stream_(std::make_shared<Stream>(loop, std::move(connection), std::move(callbacks))) {
  stream_->Open();
}

WorkerClient::~WorkerClient() {
  stream_->Detach();
  stream_->Cancel();
}

void WorkerClient::Send(v1::ToWorker message) { stream_->Send(std::move(message)); }
void WorkerClient::Cancel() { stream_->Cancel(); }

}  // namespace switchyard::supervisor
