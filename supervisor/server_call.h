#pragma once

// What every RPC has in common. Requests arrive as bytes and are parsed here, so that a string
// which is not UTF-8 is the client's INVALID_ARGUMENT and not an INTERNAL error of ours.
//
// Reactors belong to gRPC's threads and never block; the work is done on the event loop. A reactor
// is kept alive by itself until gRPC's OnDone, and by whoever still holds it on the loop.

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "supervisor/event_loop.h"
#include "supervisor/server_status.h"

namespace switchyard::supervisor {

template <typename Message>
absl::StatusOr<Message> ParseRequest(const grpc::ByteBuffer& bytes) {
  Message message;
  grpc::ByteBuffer reading = bytes;  // shares the slices; reading consumes the object
  if (!grpc::SerializationTraits<Message>::Deserialize(&reading, &message).ok()) {
    return absl::InvalidArgumentError("the request is not a valid " +
                                      Message::descriptor()->full_name() +
                                      ", or one of its strings is not UTF-8");
  }
  return message;
}

template <typename Message>
void Serialize(const Message& message, grpc::ByteBuffer* bytes) {
  bool own;
  (void)grpc::SerializationTraits<Message>::Serialize(message, bytes, &own);
}

// One request, one reply. The reply may come after the client has gone.
template <typename Response>
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  explicit UnaryCall(grpc::ByteBuffer* response) : response_(response) {}

  // From any thread; the first end of the call wins.
  void Reply(const absl::StatusOr<Response>& reply) {
    if (finished_.exchange(true)) return;
    if (reply.ok()) Serialize(*reply, response_);
    Finish(ToGrpc(reply.status()));
  }
  void OnCancel() override {
    if (!finished_.exchange(true)) Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { std::shared_ptr<UnaryCall>(std::move(self)); }

  std::shared_ptr<UnaryCall> self;

 private:
  grpc::ByteBuffer* const response_;
  std::atomic<bool> finished_ = false;
};

// Parses the request and runs `handle(request, reply)` on the loop, where `reply` takes an
// absl::StatusOr<Response>, then or later.
template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* HandleUnary(EventLoop* loop, const grpc::ByteBuffer* bytes,
                                      grpc::ByteBuffer* response, Handler handle) {
  auto call = std::make_shared<UnaryCall<Response>>(response);
  call->self = call;
  absl::StatusOr<Request> request = ParseRequest<Request>(*bytes);
  if (!request.ok()) {
    call->Reply(request.status());
  } else {
    loop->Dispatch([call, handle = std::move(handle), request = *std::move(request)]() mutable {
      handle(std::move(request),
             [call](absl::StatusOr<Response> reply) { call->Reply(std::move(reply)); });
    });
  }
  return call.get();
}

}  // namespace switchyard::supervisor
