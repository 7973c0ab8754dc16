#include "supervisor/server_reflection.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "rpc/message_bytes.h"
#include "supervisor/reflection.h"
#include "supervisor/server_status.h"

namespace switchyard::supervisor {
namespace {

using grpc::reflection::v1alpha::ServerReflectionRequest;
constexpr char kPath[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// Reads a request, writes its answer, and so on. The queue's thread only.
class ReflectionCall final : public ServerCall::Handler {
 public:
  ReflectionCall(std::shared_ptr<ServerCall> call, std::vector<std::string> services)
      : call_(std::move(call)), services_(std::move(services)) {}

  void OnRead(const grpc::ByteBuffer* message) override {
    if (message == nullptr) return call_->Finish(grpc::Status::OK);
    const auto request = ParseRequest<ServerReflectionRequest>(*message);
    if (!request.ok()) return call_->Finish(ToGrpc(request.status()));
    call_->Write(SerializeMessage(Reflect(services_, *request)));
  }
  void OnWritten(bool ok) override {
    if (ok) call_->Read();
  }
  void OnEnd() override {}

 private:
  const std::shared_ptr<ServerCall> call_;
  const std::vector<std::string> services_;
};

// Of "/service/method".
std::vector<std::string> ServicesOf(const ServerCall::Methods& methods) {
  std::vector<std::string> services;
  for (const auto& [path, method] : methods) {
    std::string service = path.substr(1, path.rfind('/') - 1);
    if (services.empty() || services.back() != service) services.push_back(std::move(service));
  }
  return services;
}

}  // namespace

void AddReflection(ServerCall::Methods* methods) {
  ServerCall::Method& method = (*methods)[kPath];
  method = [services = ServicesOf(*methods)](std::shared_ptr<ServerCall> call,
                                             const grpc::ByteBuffer& request) {
    auto handler = std::make_shared<ReflectionCall>(std::move(call), services);
    handler->OnRead(&request);
    return handler;
  };
}

}  // namespace switchyard::supervisor
