#include "supervisor/server_inference.h"

#include <memory>
#include <utility>

#include "supervisor/server_generate.h"
#include "supervisor/server_methods.h"
#include "switchyard/v1/inference.pb.h"

namespace switchyard::supervisor {
namespace {

ServerCall::Method Generate(EventLoop* loop, Router* router, uint64_t sink_limit_bytes) {
  return [=](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer& bytes) {
    return BeginCall<v1::GenerateRequest>(
        loop, std::make_shared<GenerateCall>(std::move(call), loop, router, sink_limit_bytes),
        bytes, [](v1::GenerateRequest request, const std::shared_ptr<GenerateCall>& call) {
          call->Begin(std::move(request));
        });
  };
}

std::shared_ptr<ServerCall::Handler> Chat(std::shared_ptr<ServerCall> call,
                                          const grpc::ByteBuffer&) {
  auto stream = std::make_shared<StreamCall<v1::GenerateEvent>>(std::move(call));
  stream->Close(ToGrpc(absl::UnimplementedError(
      "Chat is not there yet: render the messages yourself and use Generate")));
  return stream;
}

}  // namespace

void AddInference(EventLoop* loop, Router* router, uint64_t sink_limit_bytes,
                  ServerCall::Methods* methods) {
  const std::string service = "/switchyard.v1.Inference/";
  (*methods)[service + "Generate"] = Generate(loop, router, sink_limit_bytes);
  (*methods)[service + "Chat"] = Chat;
  (*methods)[service + "Tokenize"] = RoutedUnary<v1::TokenizeRequest, v1::TokenizeReply>(
      loop, router, [router](v1::TokenizeRequest request, auto reply) {
        return router->Tokenize(std::move(request), std::move(reply));
      });
  (*methods)[service + "Detokenize"] = RoutedUnary<v1::DetokenizeRequest, v1::DetokenizeReply>(
      loop, router, [router](v1::DetokenizeRequest request, auto reply) {
        return router->Detokenize(std::move(request), std::move(reply));
      });
  (*methods)[service + "ListModels"] = Unary<v1::ListModelsRequest, v1::ListModelsReply>(
      loop, [router](const v1::ListModelsRequest&, auto reply) { reply(router->ListModels()); });
  (*methods)[service + "GetModel"] = Unary<v1::GetModelRequest, v1::ModelStatus>(
      loop, [router](const v1::GetModelRequest& request, auto reply) {
        reply(router->GetModel(request.model()));
      });
}

}  // namespace switchyard::supervisor
