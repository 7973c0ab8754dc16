#include "supervisor/server_control.h"

#include <grpcpp/server_context.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "supervisor/peer.h"
#include "supervisor/server_methods.h"
#include "switchyard/v1/control.pb.h"

namespace switchyard::supervisor {
namespace {

// A slow client is told the newest progress of a phase; that a phase came and went is kept.
Merged MergeProgress(v1::SwitchEvent* waiting, v1::SwitchEvent* next) {
  if (waiting->phase() != next->phase()) return Merged::kNo;
  waiting->Swap(next);
  return Merged::kReplaced;
}

class SwitchCall final : public RoutedCall<v1::SwitchEvent>, public SwitchSink {
 public:
  SwitchCall(std::shared_ptr<ServerCall> call, EventLoop* loop, Router* router)
      : RoutedCall(std::move(call), loop, router, MergeProgress) {}
  void Write(const v1::SwitchEvent& event) override { Push(event); }
  void Finish(absl::Status status) override { Close(ToGrpc(status)); }
};

template <typename Request>
ServerCall::Method SwitchMethod(EventLoop* loop, Router* router, bool make_default) {
  return [=](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer& bytes) {
    return BeginCall<Request>(loop, std::make_shared<SwitchCall>(std::move(call), loop, router),
                              bytes,
                              [=](const Request& request, const std::shared_ptr<SwitchCall>& sink) {
                                sink->SetId(router->Switch(request.model(), make_default, sink));
                              });
  };
}

absl::Status CheckAccess(v1::SupervisorConfig::ControlAccess access, const std::string& socket,
                         const std::string& peer) {
  if (IsUnixPeer(peer)) return absl::OkStatus();
  if (access == v1::SupervisorConfig::UNIX_ONLY) {
    return absl::PermissionDeniedError(absl::StrCat(
        "Control is served on the Unix socket alone (control: UNIX_ONLY)",
        IsLocalPeer(peer) ? absl::StrCat(": --address unix:", socket) : ", on its own machine"));
  }
  if (access == v1::SupervisorConfig::ANYWHERE || IsLocalPeer(peer)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      "Control is served over loopback (127.0.0.1) or the Unix socket, on its own machine; "
      "`control: ANYWHERE` in the file of --config serves it to others");
}

ServerCall::Method Guarded(v1::SupervisorConfig::ControlAccess access, const std::string& socket,
                           ServerCall::Method method) {
  return [access, socket, method = std::move(method)](
             std::shared_ptr<ServerCall> call,
             const grpc::ByteBuffer& bytes) -> std::shared_ptr<ServerCall::Handler> {
    const absl::Status allowed = CheckAccess(access, socket, call->context().peer());
    if (allowed.ok()) return method(std::move(call), bytes);
    call->Finish(ToGrpc(allowed));
    return nullptr;
  };
}

}  // namespace

void AddControl(EventLoop* loop, Router* router, ReloadFunction reload,
                v1::SupervisorConfig::ControlAccess access, const std::string& socket,
                ServerCall::Methods* methods) {
  const auto add = [&](const std::string& name, ServerCall::Method method) {
    (*methods)["/switchyard.v1.Control/" + name] = Guarded(access, socket, std::move(method));
  };
  add("Switch", SwitchMethod<v1::SwitchRequest>(loop, router, /*make_default=*/true));
  add("Load", SwitchMethod<v1::LoadRequest>(loop, router, /*make_default=*/false));
  add("WatchStatus",
      Watch<v1::WatchStatusRequest, v1::Status, StatusSink>(
          loop,
          [router](const v1::WatchStatusRequest& request, std::shared_ptr<StatusSink> sink) {
            router->WatchStatus(request.min_interval_ms(), std::move(sink));
          },
          [router](const StatusSink* sink) { router->StopWatching(sink); }));
  add("Unload", RoutedUnary<v1::UnloadRequest, v1::UnloadReply>(
                    loop, router, [router](const v1::UnloadRequest& request, auto reply) {
                      return router->Unload(request.model(), std::move(reply));
                    }));
  add("Prefetch", RoutedUnary<v1::PrefetchRequest, v1::PrefetchReply>(
                      loop, router, [router](const v1::PrefetchRequest& request, auto reply) {
                        return router->Prefetch(request.model(), std::move(reply));
                      }));
  add("Pin", Unary<v1::PinRequest, v1::PinReply>(
                 loop, [router](const v1::PinRequest& request, auto reply) {
                   absl::Status status = router->Pin(request.model(), request.pinned());
                   reply(status.ok() ? absl::StatusOr<v1::PinReply>(v1::PinReply()) : status);
                 }));
  add("GetStatus",
      Unary<v1::GetStatusRequest, v1::Status>(
          loop, [router](const v1::GetStatusRequest&, auto reply) { reply(router->GetStatus()); }));
  add("ReloadConfig",
      Unary<v1::ReloadConfigRequest, v1::ReloadConfigReply>(
          loop, [reload = std::move(reload)](const v1::ReloadConfigRequest&, auto reply) {
            reload(std::move(reply));
          }));
}

}  // namespace switchyard::supervisor
