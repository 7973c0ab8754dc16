#include "supervisor/server.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>

#include "supervisor/server_call.h"
#include "supervisor/server_health.h"
#include "supervisor/server_inference.h"
#include "supervisor/server_reflection.h"

namespace switchyard::supervisor {
namespace {

constexpr int kMaxRequestBytes = 16 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxStreams = 1024;  // of one connection
// Of requests that have not arrived whole. gRPC 1.51 holds a message against its bound only then,
// so that a client could have us keep 4 GiB of one; beyond this it ends calls until there is room.
constexpr size_t kMaxArrivingBytes = 512 << 20;

// A connection that has not said by then, in TLS if it has to, that it speaks HTTP/2 is closed.
constexpr int kHandshakeMs = 20'000;

using Acceptor = std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>;

Acceptor AddAcceptor(grpc::ServerBuilder* builder,
                     std::shared_ptr<grpc::ServerCredentials> credentials) {
  return builder->experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      std::move(credentials));
}

std::shared_ptr<grpc::ServerCredentials> Tls(const Credentials& credentials) {
  grpc::SslServerCredentialsOptions options(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  options.pem_key_cert_pairs.push_back({credentials.key, credentials.certificate});
  return grpc::SslServerCredentials(options);
}

void Hand(UniqueFd connection, const Acceptor& acceptor) {
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = connection.Release();  // gRPC closes it, whatever happens
  acceptor->HandleNewConnection(&parameters);
}

void SetLimits(grpc::ServerBuilder* builder, Nanos idle) {
  builder->SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder->SetMaxSendMessageSize(-1);
  builder->SetResourceQuota(grpc::ResourceQuota("requests").Resize(kMaxArrivingBytes));
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                              static_cast<int>(idle / kMillisecond));
  // Finds clients that vanished without a word, and allows them to find out about us, but not to
  // keep us busy with pings.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 3);
}

}  // namespace

class Server::Impl {
 public:
  absl::Status Start(const Credentials& credentials, Nanos idle) {
    const bool secured = credentials.given();
    grpc::ServerBuilder builder;
    SetLimits(&builder, idle);
    // A loopback connection has no bandwidth to probe for.
    if (!secured) builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.RegisterAsyncGenericService(&service_.generic);
    service_.token = credentials.token;
    plain_ = AddAcceptor(&builder, grpc::InsecureServerCredentials());
    if (secured) tls_ = AddAcceptor(&builder, Tls(credentials));
    queue_ = std::make_unique<CallQueue>(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    if (server_ != nullptr) return absl::OkStatus();
    return absl::InternalError("the gRPC server did not start");
  }
  ~Impl() {
    Shutdown(0);
    if (queue_ != nullptr) queue_->Stop();
  }

  CallQueue* queue() { return queue_.get(); }

  void Serve(Parts parts, Options options) {
    health_ = parts.health;
    if (!service_.token.empty()) service_.proved = std::move(parts.proved);
    service_.memory = std::make_shared<RequestMemory>(options.request_memory);
    ServerCall::Methods* const methods = &service_.methods;
    AddInference(parts.loop, parts.router, options.sink_limit_bytes, methods);
    AddControl(parts.loop, parts.router, std::move(parts.reload), options.control, options.socket,
               methods);
    AddHealth(parts.loop, parts.health, methods);
    AddReflection(methods);
    ServerCall::Accept(queue_.get(), &service_);
  }

  void AddTcpConnection(UniqueFd connection) {
    Hand(std::move(connection), tls_ != nullptr ? tls_ : plain_);
  }
  void AddUnixConnection(UniqueFd connection) { Hand(std::move(connection), plain_); }

  void RefuseCalls() { service_.refusing = true; }

  void Shutdown(Nanos grace) {
    if (server_ == nullptr) return;
    if (health_ != nullptr) health_->Close();
    health_ = nullptr;
    RefuseCalls();
    service_.background.Stop();
    service_.deadlines.Stop();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::nanoseconds(grace));
    server_->Wait();
  }

 private:
  ServerCall::Service service_;
  Health* health_ = nullptr;
  std::unique_ptr<CallQueue> queue_;
  Acceptor plain_;
  Acceptor tls_;  // null: TCP is plain, too
  std::unique_ptr<grpc::Server> server_;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Create(const Credentials& credentials, Nanos idle) {
  auto impl = std::make_unique<Impl>();
  if (absl::Status status = impl->Start(credentials, idle); !status.ok()) return status;
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;
CallQueue* Server::queue() { return impl_->queue(); }
void Server::Serve(Parts parts, Options options) { impl_->Serve(std::move(parts), options); }
void Server::AddTcpConnection(UniqueFd fd) { impl_->AddTcpConnection(std::move(fd)); }
void Server::AddUnixConnection(UniqueFd fd) { impl_->AddUnixConnection(std::move(fd)); }
void Server::RefuseCalls() { impl_->RefuseCalls(); }
void Server::Shutdown(Nanos grace) { impl_->Shutdown(grace); }

}  // namespace switchyard::supervisor
