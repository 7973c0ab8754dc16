// The only file that includes grpcpp.
#include "cli/client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/outcome.h"
#include "switchyard/v1/control.grpc.pb.h"
#include "switchyard/v1/inference.grpc.pb.h"

namespace switchyard::cli {
namespace {

constexpr std::chrono::seconds kConnectTimeout{5};

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

template <typename Reply>
absl::StatusOr<Reply> Result(const grpc::Status& status, Reply reply) {
  if (!status.ok()) return FromGrpc(status);
  return reply;
}

// Waits until the channel is ready or has failed once: retrying would only hide that nobody
// listens.
bool WaitForConnection(grpc::Channel* channel) {
  const auto deadline = std::chrono::system_clock::now() + kConnectTimeout;
  for (;;) {
    const grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) return true;
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) return false;
    if (!channel->WaitForStateChange(state, deadline)) return false;
  }
}

template <typename Message>
absl::Status ReadAll(std::unique_ptr<grpc::ClientReader<Message>> reader,
                     const std::function<void(const Message&)>& on_message) {
  Message message;
  while (reader->Read(&message)) on_message(message);
  return FromGrpc(reader->Finish());
}

}  // namespace

class Client::Impl {
 public:
  explicit Impl(const std::shared_ptr<grpc::Channel>& channel)
      : inference(v1::Inference::NewStub(channel)), control(v1::Control::NewStub(channel)) {}

  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::Control::Stub> control;
  grpc::ClientContext generate;  // one Generate a client
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  if (!WaitForConnection(channel.get())) {
    return absl::UnavailableError(
        absl::StrCat("no supervisor answers at ", address, "; is it running?"));
  }
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(channel)));
}

absl::Status Client::Generate(const v1::GenerateRequest& request,
                              const std::function<void(const v1::GenerateEvent&)>& on_event) {
  return ReadAll(impl_->inference->Generate(&impl_->generate, request), on_event);
}

void Client::CancelGenerate() { impl_->generate.TryCancel(); }

absl::StatusOr<v1::TokenizeReply> Client::Tokenize(const v1::TokenizeRequest& request) {
  grpc::ClientContext context;
  v1::TokenizeReply reply;
  const grpc::Status status = impl_->inference->Tokenize(&context, request, &reply);
  return Result(status, std::move(reply));
}

absl::StatusOr<v1::DetokenizeReply> Client::Detokenize(const v1::DetokenizeRequest& request) {
  grpc::ClientContext context;
  v1::DetokenizeReply reply;
  const grpc::Status status = impl_->inference->Detokenize(&context, request, &reply);
  return Result(status, std::move(reply));
}

absl::StatusOr<v1::ListModelsReply> Client::ListModels() {
  grpc::ClientContext context;
  v1::ListModelsReply reply;
  const grpc::Status status =
      impl_->inference->ListModels(&context, v1::ListModelsRequest(), &reply);
  return Result(status, std::move(reply));
}

absl::Status Client::Switch(const std::string& model, const OnSwitchEvent& on_event) {
  grpc::ClientContext context;
  v1::SwitchRequest request;
  request.set_model(model);
  return ReadAll(impl_->control->Switch(&context, request), on_event);
}

absl::Status Client::Load(const std::string& model, const OnSwitchEvent& on_event) {
  grpc::ClientContext context;
  v1::LoadRequest request;
  request.set_model(model);
  return ReadAll(impl_->control->Load(&context, request), on_event);
}

absl::Status Client::Unload(const std::string& model) {
  grpc::ClientContext context;
  v1::UnloadRequest request;
  v1::UnloadReply reply;
  request.set_model(model);
  return FromGrpc(impl_->control->Unload(&context, request, &reply));
}

absl::StatusOr<v1::PrefetchReply> Client::Prefetch(const std::string& model) {
  grpc::ClientContext context;
  v1::PrefetchRequest request;
  v1::PrefetchReply reply;
  request.set_model(model);
  const grpc::Status status = impl_->control->Prefetch(&context, request, &reply);
  return Result(status, std::move(reply));
}

absl::Status Client::Pin(const std::string& model, bool pinned) {
  grpc::ClientContext context;
  v1::PinRequest request;
  v1::PinReply reply;
  request.set_model(model);
  request.set_pinned(pinned);
  return FromGrpc(impl_->control->Pin(&context, request, &reply));
}

absl::StatusOr<v1::Status> Client::GetStatus() {
  grpc::ClientContext context;
  v1::Status reply;
  const grpc::Status status = impl_->control->GetStatus(&context, v1::GetStatusRequest(), &reply);
  return Result(status, std::move(reply));
}

int WithClient(const std::string& address, const std::function<int(Client&)>& use) {
  auto client = Client::Connect(address);
  if (client.ok()) return use(**client);
  Outcome(client.status());
  return kNoConnection;
}

}  // namespace switchyard::cli
