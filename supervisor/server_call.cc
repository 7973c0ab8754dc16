#include "supervisor/server_call.h"

#include <utility>

namespace switchyard::supervisor {

void ServerCall::Accept(CallQueue* queue, grpc::AsyncGenericService* service,
                        const Methods* methods) {
  auto call = std::make_shared<ServerCall>(queue, service, methods);
  // gRPC takes this tag before the call is there, and returns it only if one came.
  call->context_.AsyncNotifyWhenDone(&call->done_);
  service->RequestCall(&call->context_, &call->stream_, queue->get(), queue->get(),
                       call->accepting_.Begin(call));
}

ServerCall::ServerCall(CallQueue* queue, grpc::AsyncGenericService* service, const Methods* methods)
    : queue_(queue), service_(service), methods_(methods) {}

void ServerCall::OnAccepted(bool ok) {
  if (!ok) return;  // the server shuts down
  (void)done_.Begin(shared_from_this());
  Accept(queue_, service_, methods_);
  const auto method = methods_->find(context_.method());
  if (method == methods_->end()) {
    Finish({grpc::StatusCode::UNIMPLEMENTED, "there is no method " + context_.method()});
    return;
  }
  method_ = &method->second;
  Read();
}

void ServerCall::Read() { stream_.Read(&message_, reading_.Begin(shared_from_this())); }

void ServerCall::Write(const grpc::ByteBuffer& message) {
  stream_.Write(message, writing_.Begin(shared_from_this()));
}

void ServerCall::WriteAndFinish(const grpc::ByteBuffer& message, const grpc::Status& status) {
  stream_.WriteAndFinish(message, grpc::WriteOptions(), status,
                         finishing_.Begin(shared_from_this()));
}

void ServerCall::Finish(const grpc::Status& status) {
  stream_.Finish(status, finishing_.Begin(shared_from_this()));
}

void ServerCall::OnRead(bool ok) {
  if (ended_) return;
  if (handler_ != nullptr) {
    handler_->OnRead(ok ? &message_ : nullptr);
  } else if (ok) {
    handler_ = (*method_)(shared_from_this(), message_);
  } else {
    Finish({grpc::StatusCode::INVALID_ARGUMENT, "the call ended without a request"});
  }
}

void ServerCall::OnWritten(bool ok) {
  if (!ended_) handler_->OnWritten(ok);
}

void ServerCall::OnFinished(bool) {}

void ServerCall::OnDone(bool) {
  ended_ = true;
  if (const auto handler = std::move(handler_)) handler->OnEnd(context_.IsCancelled());
}

}  // namespace switchyard::supervisor
