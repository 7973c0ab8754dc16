#include "supervisor/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>

#include "supervisor/server_inference.h"

namespace switchyard::supervisor {
namespace {

constexpr int kMaxRequestBytes = 16 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxStreams = 1024;  // of one connection

void SetLimits(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  // Finds clients that vanished without a word, and allows them to find out about us, but not to
  // keep us busy with pings.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 3);
  // A loopback connection has no bandwidth to probe for.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
}

}  // namespace

class Server::Impl {
 public:
  Impl(EventLoop* loop, Router* router, Health* health, ReloadFunction reload, Options options)
      : health_(health),
        inference_(loop, router, options.sink_limit_bytes),
        control_(loop, router, std::move(reload), options.control_unix_only) {}

  absl::Status Start() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    SetLimits(&builder);
    builder.RegisterService(&inference_);
    builder.RegisterService(&control_);
    acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
        grpc::InsecureServerCredentials());
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::InternalError("the gRPC server did not start");
    health_->Attach(server_->GetHealthCheckService());
    return absl::OkStatus();
  }

  void AddConnection(UniqueFd connection) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.fd = connection.Release();  // gRPC closes it, whatever happens
    acceptor_->HandleNewConnection(&parameters);
  }

  void Shutdown(Nanos grace) {
    health_->Attach(nullptr);
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::nanoseconds(grace));
    server_->Wait();
  }

 private:
  Health* const health_;
  InferenceService inference_;
  ControlService control_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(EventLoop* loop, Router* router,
                                                      Health* health, ReloadFunction reload,
                                                      Options options) {
  auto impl = std::make_unique<Impl>(loop, router, health, std::move(reload), options);
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
void Server::AddConnection(UniqueFd connection) { impl_->AddConnection(std::move(connection)); }
void Server::Shutdown(Nanos grace) { impl_->Shutdown(grace); }

}  // namespace switchyard::supervisor
