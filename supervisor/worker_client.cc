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

// Lives as long as an operation of it is under way, however long its WorkerClient does.
class WorkerClient::Stream final : public std::enable_shared_from_this<WorkerClient::Stream> {
 public:
  Stream(EventLoop* loop, CallQueue* queue, UniqueFd connection, Callbacks callbacks)
      : loop_(loop),
        queue_(queue),
        callbacks_(std::move(callbacks)),
        channel_(Connect(std::move(connection))),
        stub_(v1::Worker::NewStub(channel_)) {}

  void Open() {
    stream_ = stub_->PrepareAsyncServe(&context_, queue_->get());
    stream_->StartCall(opening_.Begin(shared_from_this()));
  }

  void Send(v1::ToWorker message) {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    waiting_.push_back(std::move(message));
    if (!writing_) WriteNext();
  }

  void Cancel() { context_.TryCancel(); }
  void Detach() { attached_ = false; }  // in a task, as are the callbacks

 private:
  using Ending = OwnedOperation<Stream>;

  // A stream that cannot be opened is told by the read.
  void OnOpened(bool) {
    Read();
    OnWritten(true);
  }

  // A read that fails is the last of every stream: its end, or a message that is none, after which
  // nothing that the worker says can be trusted.
  void OnRead(bool ok) {
    if (!ok) {
      context_.TryCancel();
      std::lock_guard lock(mutex_);
      ended_ = true;
      waiting_.clear();
      if (!writing_) Finish();
      return;
    }
    loop_->Dispatch([self = shared_from_this(), message = std::move(incoming_)] {
      if (self->attached_) self->callbacks_.message(*message);
    });
    Read();
  }

  void OnWritten(bool ok) {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!ok) waiting_.clear();
    if (!waiting_.empty()) {
      WriteNext();
    } else if (ended_) {
      Finish();
    }
  }

  void OnFinished(bool) {
    loop_->Dispatch([self = shared_from_this()] {
      if (self->attached_) self->callbacks_.closed();
    });
  }

  void Read() {
    incoming_ = std::make_unique<v1::FromWorker>();
    stream_->Read(incoming_.get(), reading_.Begin(shared_from_this()));
  }

  // These hold mutex_.
  void WriteNext() {
    writing_ = true;
    stream_->Write(waiting_.front(), written_.Begin(shared_from_this()));
    waiting_.pop_front();  // it is serialized
  }
  void Finish() { stream_->Finish(&status_, finishing_.Begin(shared_from_this())); }

  EventLoop* const loop_;
  CallQueue* const queue_;
  const Callbacks callbacks_;
  bool attached_ = true;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Worker::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<v1::ToWorker, v1::FromWorker>> stream_;
  std::unique_ptr<v1::FromWorker> incoming_;
  grpc::Status status_;
  Ending opening_{queue_, &Stream::OnOpened};
  Ending reading_{queue_, &Stream::OnRead};
  Ending written_{queue_, &Stream::OnWritten};
  Ending finishing_{queue_, &Stream::OnFinished};

  std::mutex mutex_;
  std::deque<v1::ToWorker> waiting_;
  bool writing_ = true;  // until the stream is open
  bool ended_ = false;
};

WorkerClient::WorkerClient(EventLoop* loop, CallQueue* queue, UniqueFd connection,
                           Callbacks callbacks)
    : stream_(std::make_shared<Stream>(loop, queue, std::move(connection), std::move(callbacks))) {
  stream_->Open();
}

WorkerClient::~WorkerClient() {
  stream_->Detach();
  stream_->Cancel();
}

void WorkerClient::Send(v1::ToWorker message) { stream_->Send(std::move(message)); }
void WorkerClient::Cancel() { stream_->Cancel(); }

}  // namespace switchyard::supervisor
