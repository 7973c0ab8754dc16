#include "supervisor/server_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/peer.h"
#include "supervisor/retry_after.h"
#include "supervisor/server_status.h"
#include "supervisor/server_token.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kToldEvery = 1000;  // refusals: a client in a loop must not fill the log
constexpr size_t kUnixRoom = 1024;     // further calls, that no other machine can use up
constexpr size_t kMostRefused = 256;   // that wait to be told why
constexpr Nanos kRetry = kSecond;

}  // namespace

void ServerCall::Accept(CallQueue* queue, Service* service) {
  auto call = std::make_shared<ServerCall>(queue, service);
  // gRPC takes this tag before the call is there, and returns it only if one came.
  call->context_.AsyncNotifyWhenDone(call->done_.tag());
  service->generic.RequestCall(&call->context_, &call->stream_, queue->get(), queue->get(),
                               call->accepting_.Begin(call));
}

void ServerCall::OnAccepted(bool ok) {
  if (!ok) return;  // the server shuts down
  (void)done_.Begin(shared_from_this());
  Accept(queue_, service_);
  if (const absl::Status admitted = Admit(); !admitted.ok()) return Refuse(admitted);
  const auto method = service_->methods.find(context_.method());
  if (method == service_->methods.end()) {
    Finish(ToGrpc(absl::UnimplementedError("there is no method " + context_.method())));
    return;
  }
  method_ = &method->second;
  service_->deadlines.Set(queue_, this, service_->arrives_within);
  Read();
}

ServerCall::~ServerCall() {
  if (counted_in_ != nullptr) --*counted_in_;
}

// Before anything of the request is read, and whatever the method: what there is to be called is
// no stranger's business either. Nor do strangers take up the room of those who bring the token.
absl::Status ServerCall::Admit() {
  if (!BringsToken(context_, service_->token)) {
    if (service_->without_token++ % kToldEvery == 0) {
      LogWarning("a call without the right token from ", context_.peer(), " (",
                 service_->without_token, " so far)");
    }
    return absl::UnauthenticatedError(
        "the token is missing or wrong: send the metadata `authorization: Bearer TOKEN`");
  }
  if (service_->proved) service_->proved(context_.peer());
  const size_t calls = *service_->calls;
  if (calls >= service_->most_calls &&
      (calls >= service_->most_calls + kUnixRoom || !IsUnixPeer(context_.peer()))) {
    return WithRetryAfter(absl::ResourceExhaustedError(
                              absl::StrCat("there are ", calls, " calls already: try again later")),
                          kRetry);
  }
  CountIn(service_->calls);
  return absl::OkStatus();
}

void ServerCall::CountIn(const Count& count) {
  counted_in_ = count;
  ++*count;
}

// A status is kept until the client takes it, which one that means ill never does.
void ServerCall::Refuse(const absl::Status& why) {
  CountIn(service_->refused);
  if (*service_->refused <= kMostRefused) return Finish(ToGrpc(why));
  Cancel();
}

void ServerCall::Closing() { service_->deadlines.Set(queue_, this, service_->taken_within); }

void ServerCall::Read() { stream_.Read(&message_, reading_.Begin(shared_from_this())); }

void ServerCall::Write(const grpc::ByteBuffer& message) {
  stream_.Write(message, writing_.Begin(shared_from_this()));
}

void ServerCall::WriteAndFinish(const grpc::ByteBuffer& message, const grpc::Status& status) {
  Closing();
  stream_.WriteAndFinish(message, grpc::WriteOptions(), status,
                         finishing_.Begin(shared_from_this()));
}

void ServerCall::Finish(const grpc::Status& status) {
  Closing();
  stream_.Finish(status, finishing_.Begin(shared_from_this()));
}

void ServerCall::OnRead(bool ok) {
  if (ended_) return;
  service_->deadlines.Clear(this);
  grpc::ByteBuffer message;  // goes when it is handled
  message.Swap(&message_);
  if (handler_ != nullptr) {
    handler_->OnRead(ok ? &message : nullptr);
  } else if (service_->refusing) {
    Finish(ToGrpc(absl::UnavailableError("the server is shutting down")));
  } else if (ok) {
    handler_ = (*method_)(shared_from_this(), message);
  } else {
    Finish(ToGrpc(absl::InvalidArgumentError("the call ended without a request")));
  }
}

void ServerCall::OnWritten(bool ok) {
  if (!ended_) handler_->OnWritten(ok);
}

void ServerCall::OnDone(bool) {
  ended_ = true;
  service_->deadlines.Clear(this);
  if (const auto handler = std::move(handler_)) handler->OnEnd();
}

}  // namespace switchyard::supervisor
