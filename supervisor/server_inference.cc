#include "supervisor/server_inference.h"

#include <memory>
#include <utility>

#include "supervisor/server_generate.h"

namespace switchyard::supervisor {

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(Context* context,
                                                                       const Bytes* request) {
  auto call = std::make_shared<GenerateCall>(loop_, router_, sink_limit_bytes_);
  call->Open();
  call->Begin(*context, *request);
  return call.get();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Chat(Context* context,
                                                                   const Bytes* request) {
  auto call = std::make_shared<StreamCall<v1::GenerateEvent>>(nullptr);
  call->Open();
  call->Close(ToGrpc(absl::UnimplementedError(
      "Chat is not there yet: render the messages yourself and use Generate")));
  return call.get();
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(Context*, const Bytes* request,
                                                     Bytes* response) {
  return HandleUnary<v1::TokenizeRequest, v1::TokenizeReply>(
      loop_, request, response, [router = router_](v1::TokenizeRequest request, auto reply) {
        router->Tokenize(std::move(request), std::move(reply));
      });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(Context*, const Bytes* request,
                                                       Bytes* response) {
  return HandleUnary<v1::DetokenizeRequest, v1::DetokenizeReply>(
      loop_, request, response, [router = router_](v1::DetokenizeRequest request, auto reply) {
        router->Detokenize(std::move(request), std::move(reply));
      });
}

grpc::ServerUnaryReactor* InferenceService::ListModels(Context*, const Bytes* request,
                                                       Bytes* response) {
  return HandleUnary<v1::ListModelsRequest, v1::ListModelsReply>(
      loop_, request, response,
      [router = router_](v1::ListModelsRequest, auto reply) { reply(router->ListModels()); });
}

grpc::ServerUnaryReactor* InferenceService::GetModel(Context*, const Bytes* request,
                                                     Bytes* response) {
  return HandleUnary<v1::GetModelRequest, v1::ModelStatus>(
      loop_, request, response, [router = router_](v1::GetModelRequest request, auto reply) {
        reply(router->GetModel(request.model()));
      });
}

}  // namespace switchyard::supervisor
