#pragma once

// How the methods of our services begin. The queue's thread parses a request, and mostly runs the
// event loop's task that it becomes, too: neither may take long, since meanwhile no other
// call moves. A call is kept alive by its operations, and by whoever still holds it in a
// task.

#include <grpcpp/support/byte_buffer.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "rpc/message_bytes.h"
#include "supervisor/event_loop.h"
#include "supervisor/retry_after.h"
#include "supervisor/routed_call.h"
#include "supervisor/router.h"
#include "supervisor/server_call.h"
#include "supervisor/server_status.h"
#include "supervisor/server_stream.h"

namespace switchyard::supervisor {

// Larger requests are parsed in the background: millions of token ids take a while. Smaller ones
// that come later overtake them.
constexpr size_t kParsedAtOnce = 64 << 10;
constexpr size_t kMostInBackground = 64;
constexpr Nanos kBackgroundRetry = kSecond;

// Parses the request and runs `begin(request, call)` in a task, where the call is a StreamCall,
// unless the client has gone by then. What there is no memory for is refused: by its bytes before
// they are looked at, and parsed (many times as large, perhaps) before anybody keeps it.
template <typename Request, typename Call, typename Begin>
std::shared_ptr<ServerCall::Handler> BeginCall(EventLoop* loop, std::shared_ptr<Call> call,
                                               const grpc::ByteBuffer& bytes, Begin begin) {
  auto parse = [loop, call, bytes = grpc::ByteBuffer(bytes), begin = std::move(begin)]() mutable {
    if (call->gone()) return;
    absl::StatusOr<Request> request = ParseRequest<Request>(bytes);
    bytes.Clear();
    absl::Status status = request.status();
    if (status.ok()) status = call->memory().Resize(request->SpaceUsedLong());
    if (!status.ok()) return call->Close(ToGrpc(status));
    loop->Dispatch([call, begin = std::move(begin), request = *std::move(request)]() mutable {
      if (!call->gone()) begin(std::move(request), call);
    });
  };
  Executor& background = call->service().background;
  if (absl::Status room = call->memory().Resize(bytes.Length()); !room.ok()) {
    call->Close(ToGrpc(room));
  } else if (bytes.Length() <= kParsedAtOnce) {
    parse();
  } else if (background.size() < kMostInBackground) {
    background.Post(std::move(parse));
  } else {
    call->Close(ToGrpc(WithRetryAfter(
        absl::ResourceExhaustedError(
            "too many large requests wait to be read: send them one after the other"),
        kBackgroundRetry)));
  }
  return call;
}

// Takes a call's only answer, in a task, also when the client has gone: it keeps nothing of the
// call.
template <typename Response>
Reply<Response> ReplyTo(const std::shared_ptr<StreamCall<Response>>& call) {
  return [waits = std::weak_ptr(call)](absl::StatusOr<Response> reply) {
    const auto call = waits.lock();
    if (call == nullptr) return;
    absl::Status status = reply.status();
    if (status.ok()) status = call->memory().Resize(reply->ByteSizeLong());
    status.ok() ? call->PushAndClose(*std::move(reply)) : call->Close(ToGrpc(status));
  };
}

// One request, one reply: `handle(request, reply)` runs in a task.
template <typename Request, typename Response, typename Handle>
ServerCall::Method Unary(EventLoop* loop, Handle handle) {
  using Call = StreamCall<Response>;
  return [loop, handle](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer& bytes) {
    return BeginCall<Request>(loop, std::make_shared<Call>(std::move(call)), bytes,
                              [handle](Request request, const std::shared_ptr<Call>& call) {
                                handle(std::move(request), ReplyTo<Response>(call));
                              });
  };
}

// The same of what the router may take a while to answer: `handle` returns the number that it has
// there.
template <typename Request, typename Response, typename Handle>
ServerCall::Method RoutedUnary(EventLoop* loop, Router* router, Handle handle) {
  using Call = RoutedCall<Response>;
  return [=](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer& bytes) {
    return BeginCall<Request>(loop, std::make_shared<Call>(std::move(call), loop, router), bytes,
                              [handle](Request request, const std::shared_ptr<Call>& call) {
                                call->SetId(handle(std::move(request), ReplyTo<Response>(call)));
                              });
  };
}

// A stream of states of which only the newest counts, until the client leaves. `Sink` is the port
// that the loop writes to.
template <typename Message, typename Sink>
class WatchCall final : public StreamCall<Message>, public Sink {
 public:
  using Leave = std::function<void(const Sink*)>;  // in a task
  WatchCall(std::shared_ptr<ServerCall> call, EventLoop* loop, Leave leave)
      : StreamCall<Message>(std::move(call), StreamCall<Message>::KeepNewest),
        loop_(loop),
        leave_(std::move(leave)) {}
  void Write(const Message& message) override { this->Push(message); }
  void Finish(absl::Status status) override { this->Close(ToGrpc(status)); }

 private:
  void Cancelled() override {
    loop_->Dispatch([call = this->shared_from_this(), this] { leave_(this); });
  }

  EventLoop* const loop_;
  const Leave leave_;
};

// `begin(request, sink)` and `leave(sink)` run in tasks.
template <typename Request, typename Message, typename Sink, typename Begin>
ServerCall::Method Watch(EventLoop* loop, Begin begin,
                         typename WatchCall<Message, Sink>::Leave leave) {
  using Call = WatchCall<Message, Sink>;
  return [=](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer& bytes) {
    return BeginCall<Request>(loop, std::make_shared<Call>(std::move(call), loop, leave), bytes,
                              [begin](const Request& request, std::shared_ptr<Call> sink) {
                                begin(request, std::move(sink));
                              });
  };
}

}  // namespace switchyard::supervisor
