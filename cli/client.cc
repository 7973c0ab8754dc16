// The only file that includes grpcpp.
#include "cli/client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/names.h"
#include "cli/outcome.h"
#include "common/json.h"
#include "common/secret_file.h"
#include "common/status_macros.h"
#include "switchyard/v1/control.grpc.pb.h"
#include "switchyard/v1/inference.grpc.pb.h"

namespace switchyard::cli {
namespace {

constexpr std::chrono::seconds kConnectTimeout{5};

// Waits until the channel is ready or has failed once: retrying would only hide that nobody
// listens. Another state: it was on its way there for too long.
grpc_connectivity_state WaitForConnection(grpc::Channel* channel) {
  const auto deadline = std::chrono::system_clock::now() + kConnectTimeout;
  for (;;) {
    const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_TRANSIENT_FAILURE ||
        state == GRPC_CHANNEL_SHUTDOWN || !channel->WaitForStateChange(state, deadline)) {
      return state;
    }
  }
}

// What gRPC knows of a channel that has failed: it tells whoever calls.
std::string WhyFailed(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kConnectTimeout);
  v1::ListModelsReply reply;
  return v1::Inference::NewStub(channel)
      ->ListModels(&context, v1::ListModelsRequest(), &reply)
      .error_message();
}

// gRPC takes whatever it is given, and then says in lines of its own that it cannot use it.
absl::Status CheckCertificates(const std::string& path, const std::string& pem) {
  const std::unique_ptr<BIO, int (*)(BIO*)> reader(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  const std::unique_ptr<X509, void (*)(X509*)> first(
      PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr), X509_free);
  ERR_clear_error();
  if (first != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": holds no certificate in PEM"));
}

bool Has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// Where nobody answers: what may be amiss though somebody is there.
std::string Hint(const Endpoint& server) {
  if (IsUnixAddress(server.address)) return "";
  if (server.tls_ca.empty()) {
    return " If it is: it may want TLS, with --tls-ca and --token-file";
  }
  return absl::StrCat(" If it is: does ", server.tls_ca,
                      " vouch for its certificate, and for this address?");
}

// Why there is no connection, as far as it can be told.
std::string NoConnection(const Endpoint& server, grpc_connectivity_state state,
                         const std::shared_ptr<grpc::Channel>& channel) {
  const std::string& address = server.address;
  if (state == GRPC_CHANNEL_CONNECTING) {
    return absl::StrCat(address, " does not answer within ", kConnectTimeout.count(),
                        " s: what listens there may be stopped, or be no supervisor",
                        IsUnixAddress(address)
                            ? ""
                            : ", or the network loses what is sent to it, or to a name server");
  }
  const std::string why = WhyFailed(channel);
  if (Has(why, "Permission denied")) {
    return absl::StrCat(address, ": permission denied; its socket, and the directory that it is ",
                        "in, are for the supervisor's own user and group");
  }
  if (Has(why, "DNS resolution failed") || Has(why, "Domain name not found")) {
    return absl::StrCat("the name of the host in ", address, " cannot be resolved (", why, ")");
  }
  const bool nobody = Has(why, "Connection refused") || Has(why, "No such file or directory");
  return absl::StrCat("no supervisor answers at ", address,
                      nobody ? "" : absl::StrCat(" (", why, ")"), "; is it running?", Hint(server));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> CredentialsFor(const Endpoint& server) {
  if (server.tls_ca.empty() || IsUnixAddress(server.address)) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions options;
  ASSIGN_OR_RETURN(options.pem_root_certs, ReadFile(server.tls_ca, kMostSecretBytes));
  RETURN_IF_ERROR(CheckCertificates(server.tls_ca, options.pem_root_certs));
  std::shared_ptr<grpc::ChannelCredentials> tls = grpc::SslCredentials(options);
  if (server.token_file.empty()) return tls;
  ASSIGN_OR_RETURN(const std::string token, ReadTokenFile(server.token_file));
  return grpc::CompositeChannelCredentials(tls, grpc::AccessTokenCredentials(token));
}

// Whether a call ended because the connection did. The supervisor's own word has details.
bool ConnectionLost(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE && status.error_details().empty();
}

// What gRPC says where it takes no message of this size: both sizes, and nothing to be done.
bool TooLarge(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
         status.error_details().empty() &&
         status.error_message().find("larger than max") != std::string::npos;
}

}  // namespace

class Client::Impl {
 public:
  Impl(const std::shared_ptr<grpc::Channel>& channel, const Endpoint& server)
      : inference(v1::Inference::NewStub(channel)),
        control(v1::Control::NewStub(channel)),
        address(server.address),
        brings_token(!server.token_file.empty()) {}

  // One reply: `method` is one of a stub's.
  template <typename Stub, typename Request, typename Reply>
  absl::StatusOr<Reply> Ask(const std::unique_ptr<Stub>& stub,
                            grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                         Reply*),
                            const Request& request) {
    grpc::ClientContext context;
    Reply reply;
    RETURN_IF_ERROR(Ended((stub.get()->*method)(&context, request, &reply)));
    return reply;
  }

  // A stream of them.
  template <typename Message>
  absl::Status ReadAll(grpc::ClientContext* context,
                       std::unique_ptr<grpc::ClientReader<Message>> reader,
                       const std::function<bool(const Message&)>& on_message) {
    Message message;
    bool more = true;
    while (more && reader->Read(&message)) more = on_message(message);
    if (!more) context->TryCancel();
    return Ended(reader->Finish());
  }

  absl::Status Ended(const grpc::Status& status) {
    if (ConnectionLost(status)) {
      lost = true;
      return absl::UnavailableError(absl::StrCat(
          "the connection to ", address, " was lost (", status.error_message(),
          "); look whether the supervisor still runs, and why not in its log, then ask again"));
    }
    if (TooLarge(status)) {
      return absl::ResourceExhaustedError(absl::StrCat(
          status.error_message(),
          ": the request has more bytes than the supervisor takes, send a shorter one"));
    }
    const bool needs_token =
        status.error_code() == grpc::StatusCode::UNAUTHENTICATED && !brings_token;
    return absl::Status(
        static_cast<absl::StatusCode>(status.error_code()),
        absl::StrCat(status.error_message(), needs_token ? ", as --token-file FILE does" : ""));
  }

  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::Control::Stub> control;
  grpc::ClientContext generate;  // one Generate a client
  const std::string address;
  const bool brings_token;
  bool lost = false;  // the connection
};

namespace {

// All of them name a model.
template <typename Request>
Request About(const std::string& model) {
  Request request;
  request.set_model(model);
  return request;
}

}  // namespace

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const Endpoint& server) {
  ASSIGN_OR_RETURN(const auto credentials, CredentialsFor(server));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  auto channel = grpc::CreateCustomChannel(server.address, credentials, arguments);
  const grpc_connectivity_state state = WaitForConnection(channel.get());
  if (state != GRPC_CHANNEL_READY) {
    return absl::UnavailableError(NoConnection(server, state, channel));
  }
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(channel, server)));
}

bool Client::connection_lost() const { return impl_->lost; }

absl::Status Client::Generate(const v1::GenerateRequest& request,
                              const std::function<bool(const v1::GenerateEvent&)>& on_event) {
  return impl_->ReadAll(&impl_->generate, impl_->inference->Generate(&impl_->generate, request),
                        on_event);
}

void Client::CancelGenerate() { impl_->generate.TryCancel(); }

absl::StatusOr<v1::TokenizeReply> Client::Tokenize(const v1::TokenizeRequest& request) {
  return impl_->Ask(impl_->inference, &v1::Inference::Stub::Tokenize, request);
}

absl::StatusOr<v1::DetokenizeReply> Client::Detokenize(const v1::DetokenizeRequest& request) {
  return impl_->Ask(impl_->inference, &v1::Inference::Stub::Detokenize, request);
}

absl::StatusOr<v1::ListModelsReply> Client::ListModels() {
  return impl_->Ask(impl_->inference, &v1::Inference::Stub::ListModels, v1::ListModelsRequest());
}

absl::Status Client::Switch(const std::string& model, const OnSwitchEvent& on_event) {
  grpc::ClientContext context;
  const auto request = About<v1::SwitchRequest>(model);
  return impl_->ReadAll(&context, impl_->control->Switch(&context, request), on_event);
}

absl::Status Client::Load(const std::string& model, const OnSwitchEvent& on_event) {
  grpc::ClientContext context;
  const auto request = About<v1::LoadRequest>(model);
  return impl_->ReadAll(&context, impl_->control->Load(&context, request), on_event);
}

absl::Status Client::Unload(const std::string& model) {
  return impl_->Ask(impl_->control, &v1::Control::Stub::Unload, About<v1::UnloadRequest>(model))
      .status();
}

absl::StatusOr<v1::PrefetchReply> Client::Prefetch(const std::string& model) {
  return impl_->Ask(impl_->control, &v1::Control::Stub::Prefetch,
                    About<v1::PrefetchRequest>(model));
}

absl::Status Client::Pin(const std::string& model, bool pinned) {
  auto request = About<v1::PinRequest>(model);
  request.set_pinned(pinned);
  return impl_->Ask(impl_->control, &v1::Control::Stub::Pin, request).status();
}

absl::StatusOr<v1::Status> Client::GetStatus() {
  return impl_->Ask(impl_->control, &v1::Control::Stub::GetStatus, v1::GetStatusRequest());
}

absl::StatusOr<v1::ReloadConfigReply> Client::ReloadConfig() {
  return impl_->Ask(impl_->control, &v1::Control::Stub::ReloadConfig, v1::ReloadConfigRequest());
}

int WithClient(const Endpoint& server, const std::function<int(Client&)>& use) {
  auto client = Client::Connect(server);
  if (!client.ok()) {
    const int refused = Outcome(client.status());
    if (absl::IsInvalidArgument(client.status())) return kWrongUsage;
    return absl::IsUnavailable(client.status()) ? kNoConnection : refused;
  }
  const int code = use(**client);
  return code != kDone && (*client)->connection_lost() ? kNoConnection : code;
}

}  // namespace switchyard::cli
