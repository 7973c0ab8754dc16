#pragma once

#include <functional>

#include "supervisor/event_loop.h"
#include "supervisor/router.h"
#include "supervisor/server_call.h"
#include "switchyard/v1/control.grpc.pb.h"

namespace switchyard::supervisor {

// Reads models.d again and answers when the router has the result. Called on the loop.
using ReloadFunction = std::function<void(Reply<v1::ReloadConfigReply>)>;

// switchyard.v1.Control. With `unix_only`, calls over TCP are refused: PERMISSION_DENIED.
class ControlService final
    : public v1::Control::WithRawCallbackMethod_Switch<v1::Control::WithRawCallbackMethod_Load<
          v1::Control::WithRawCallbackMethod_Unload<v1::Control::WithRawCallbackMethod_Prefetch<
              v1::Control::WithRawCallbackMethod_Pin<v1::Control::WithRawCallbackMethod_GetStatus<
                  v1::Control::WithRawCallbackMethod_WatchStatus<
                      v1::Control::WithRawCallbackMethod_ReloadConfig<v1::Control::Service>>>>>>>> {
 public:
  ControlService(EventLoop* loop, Router* router, ReloadFunction reload, bool unix_only)
      : loop_(loop), router_(router), reload_(std::move(reload)), unix_only_(unix_only) {}

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  grpc::ServerWriteReactor<Bytes>* Switch(Context* context, const Bytes* request) override;
  grpc::ServerWriteReactor<Bytes>* Load(Context* context, const Bytes* request) override;
  grpc::ServerWriteReactor<Bytes>* WatchStatus(Context* context, const Bytes* request) override;
  grpc::ServerUnaryReactor* Unload(Context*, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* Prefetch(Context*, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* Pin(Context*, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* GetStatus(Context*, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* ReloadConfig(Context*, const Bytes* request, Bytes* response) override;

 private:
  // HandleUnary, unless the caller may not control us.
  template <typename Request, typename Response, typename Handler>
  grpc::ServerUnaryReactor* Unary(Context* context, const Bytes* request, Bytes* response,
                                  Handler handle);
  absl::Status CheckAccess(const Context& context) const;

  EventLoop* const loop_;
  Router* const router_;
  const ReloadFunction reload_;
  const bool unix_only_;
};

}  // namespace switchyard::supervisor
