#pragma once

// How the methods of our services begin. The queue's thread parses a request, and mostly runs the
// event loop's task that it becomes, too: neither may wait for anything slow, since meanwhile no
// other call moves. A call is kept alive by its operations, and by whoever still holds it in a
// task.

#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "rpc/message_bytes.h"
#include "supervisor/event_loop.h"
#include "supervisor/server_call.h"
#include "supervisor/server_status.h"
#include "supervisor/server_stream.h"

namespace switchyard::supervisor {

// Parses the request and runs `begin(request, call)` in a task, where the call is a StreamCall.
template <typename Request, typename Call, typename Begin>
std::shared_ptr<ServerCall::Handler> BeginCall(EventLoop* loop, std::shared_ptr<Call> call,
                                               const grpc::ByteBuffer& bytes, Begin begin) {
  absl::StatusOr<Request> request = ParseRequest<Request>(bytes);
  if (!request.ok()) {
    call->Close(ToGrpc(request.status()));
  } else {
    loop->Dispatch([call, begin = std::move(begin), request = *std::move(request)]() mutable {
      begin(std::move(request), call);
    });
  }
  return call;
}

// One request, one reply: `handle(request, reply)` runs in a task, and `reply` takes an
// absl::StatusOr<Response>, then or later, also when the client has gone.
template <typename Request, typename Response, typename Handle>
ServerCall::Method Unary(EventLoop* loop, Handle handle) {
  using Call = StreamCall<Response>;
  return [loop, handle](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer& bytes) {
    return BeginCall<Request>(loop, std::make_shared<Call>(std::move(call)), bytes,
                              [handle](Request request, std::shared_ptr<Call> call) {
                                handle(std::move(request), [call](absl::StatusOr<Response> reply) {
                                  reply.ok() ? call->PushAndClose(*std::move(reply))
                                             : call->Close(ToGrpc(reply.status()));
                                });
                              });
  };
}

}  // namespace switchyard::supervisor
