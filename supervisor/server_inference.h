#pragma once

#include "supervisor/event_loop.h"
#include "supervisor/router.h"
#include "supervisor/server_call.h"
#include "switchyard/v1/inference.grpc.pb.h"

namespace switchyard::supervisor {

// switchyard.v1.Inference on gRPC's threads: parses, posts to the event loop, and is answered from
// there.
class InferenceService final
    : public v1::Inference::WithRawCallbackMethod_Generate<
          v1::Inference::WithRawCallbackMethod_Chat<v1::Inference::WithRawCallbackMethod_Tokenize<
              v1::Inference::WithRawCallbackMethod_Detokenize<
                  v1::Inference::WithRawCallbackMethod_ListModels<
                      v1::Inference::WithRawCallbackMethod_GetModel<v1::Inference::Service>>>>>> {
 public:
  InferenceService(EventLoop* loop, Router* router, uint64_t sink_limit_bytes)
      : loop_(loop), router_(router), sink_limit_bytes_(sink_limit_bytes) {}

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  grpc::ServerWriteReactor<Bytes>* Generate(Context* context, const Bytes* request) override;
  grpc::ServerWriteReactor<Bytes>* Chat(Context* context, const Bytes* request) override;
  grpc::ServerUnaryReactor* Tokenize(Context*, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* Detokenize(Context*, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* ListModels(Context*, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* GetModel(Context*, const Bytes* request, Bytes* response) override;

 private:
  EventLoop* const loop_;
  Router* const router_;
  const uint64_t sink_limit_bytes_;
};

}  // namespace switchyard::supervisor
