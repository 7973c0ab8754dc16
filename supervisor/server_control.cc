#include "supervisor/server_control.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "supervisor/server_stream.h"

namespace switchyard::supervisor {
namespace {

// A slow client is told the newest progress of a phase; that a phase came and went is kept.
Merged MergeProgress(v1::SwitchEvent* waiting, v1::SwitchEvent* next) {
  if (waiting->phase() != next->phase()) return Merged::kNo;
  waiting->Swap(next);
  return Merged::kReplaced;
}

Merged MergeStatus(v1::Status* waiting, v1::Status* next) {
  waiting->Swap(next);
  return Merged::kReplaced;
}

// A client that leaves does not end the switch: there is nobody to tell, and nothing to do.
class SwitchCall final : public StreamCall<v1::SwitchEvent>, public SwitchSink {
 public:
  SwitchCall() : StreamCall(MergeProgress) {}
  void Write(const v1::SwitchEvent& event) override { Push(event); }
  void Finish(absl::Status status) override { Close(ToGrpc(status)); }
};

class StatusCall final : public StreamCall<v1::Status>, public StatusSink {
 public:
  StatusCall(EventLoop* loop, Router* router)
      : StreamCall(MergeStatus), loop_(loop), router_(router) {}
  void Write(const v1::Status& status) override { Push(status); }
  void Finish(absl::Status status) override { Close(ToGrpc(status)); }

 private:
  void Cancelled() override {
    loop_->Dispatch([call = std::static_pointer_cast<StatusCall>(shared_from_this())] {
      call->router_->StopWatching(call.get());
    });
  }

  EventLoop* const loop_;
  Router* const router_;
};

// A stream that is answered on the loop by `begin(request, call)`.
template <typename Request, typename Call, typename Begin>
grpc::ServerWriteReactor<grpc::ByteBuffer>* HandleStream(EventLoop* loop,
                                                         std::shared_ptr<Call> call,
                                                         const absl::Status& access,
                                                         const grpc::ByteBuffer& bytes,
                                                         Begin begin) {
  call->Open();
  absl::StatusOr<Request> request = access.ok() ? ParseRequest<Request>(bytes) : access;
  if (!request.ok()) {
    call->Close(ToGrpc(request.status()));
  } else {
    loop->Dispatch(
        [call, begin = std::move(begin), request = *std::move(request)] { begin(request, call); });
  }
  return call.get();
}

}  // namespace

absl::Status ControlService::CheckAccess(const Context& context) const {
  if (!unix_only_ || absl::StartsWith(context.peer(), "unix")) return absl::OkStatus();
  return absl::PermissionDeniedError(
      "Control is served on the Unix socket alone (control: UNIX_ONLY)");
}

template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* ControlService::Unary(Context* context, const Bytes* request,
                                                Bytes* response, Handler handle) {
  if (absl::Status access = CheckAccess(*context); !access.ok()) {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(access));
    return reactor;
  }
  return HandleUnary<Request, Response>(loop_, request, response, std::move(handle));
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ControlService::Switch(Context* context,
                                                                   const Bytes* request) {
  return HandleStream<v1::SwitchRequest>(
      loop_, std::make_shared<SwitchCall>(), CheckAccess(*context), *request,
      [router = router_](const v1::SwitchRequest& request, std::shared_ptr<SwitchCall> call) {
        router->Switch(request.model(), /*make_default=*/true, std::move(call));
      });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ControlService::Load(Context* context,
                                                                 const Bytes* request) {
  return HandleStream<v1::LoadRequest>(
      loop_, std::make_shared<SwitchCall>(), CheckAccess(*context), *request,
      [router = router_](const v1::LoadRequest& request, std::shared_ptr<SwitchCall> call) {
        router->Switch(request.model(), /*make_default=*/false, std::move(call));
      });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ControlService::WatchStatus(Context* context,
                                                                        const Bytes* request) {
  return HandleStream<v1::WatchStatusRequest>(
      loop_, std::make_shared<StatusCall>(loop_, router_), CheckAccess(*context), *request,
      [router = router_](const v1::WatchStatusRequest& request, std::shared_ptr<StatusCall> call) {
        router->WatchStatus(request.min_interval_ms(), std::move(call));
      });
}

grpc::ServerUnaryReactor* ControlService::Unload(Context* context, const Bytes* request,
                                                 Bytes* response) {
  return Unary<v1::UnloadRequest, v1::UnloadReply>(
      context, request, response, [router = router_](v1::UnloadRequest request, auto reply) {
        router->Unload(request.model(), std::move(reply));
      });
}

grpc::ServerUnaryReactor* ControlService::Prefetch(Context* context, const Bytes* request,
                                                   Bytes* response) {
  return Unary<v1::PrefetchRequest, v1::PrefetchReply>(
      context, request, response, [router = router_](v1::PrefetchRequest request, auto reply) {
        router->Prefetch(request.model(), std::move(reply));
      });
}

grpc::ServerUnaryReactor* ControlService::Pin(Context* context, const Bytes* request,
                                              Bytes* response) {
  return Unary<v1::PinRequest, v1::PinReply>(
      context, request, response, [router = router_](v1::PinRequest request, auto reply) {
        absl::Status status = router->Pin(request.model(), request.pinned());
        reply(status.ok() ? absl::StatusOr<v1::PinReply>(v1::PinReply()) : status);
      });
}

grpc::ServerUnaryReactor* ControlService::GetStatus(Context* context, const Bytes* request,
                                                    Bytes* response) {
  return Unary<v1::GetStatusRequest, v1::Status>(
      context, request, response,
      [router = router_](v1::GetStatusRequest, auto reply) { reply(router->GetStatus()); });
}

grpc::ServerUnaryReactor* ControlService::ReloadConfig(Context* context, const Bytes* request,
                                                       Bytes* response) {
  return Unary<v1::ReloadConfigRequest, v1::ReloadConfigReply>(
      context, request, response,
      [this](v1::ReloadConfigRequest, auto reply) { reload_(std::move(reply)); });
}

}  // namespace switchyard::supervisor
