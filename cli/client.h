#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/endpoint.h"
#include "switchyard/v1/control.pb.h"
#include "switchyard/v1/inference.pb.h"

namespace switchyard::cli {

namespace v1 = ::switchyard::v1;

// A connection to a supervisor. Calls block.
class Client {
 public:
  // UNAVAILABLE as soon as the address refuses, or after 5 s. Other errors are of the endpoint's
  // files: INVALID_ARGUMENT if what they hold is not that.
  static absl::StatusOr<std::unique_ptr<Client>> Connect(const Endpoint& server);
  ~Client();

  // Streams: an `on_event` that returns false ends them, with CANCELLED.
  absl::Status Generate(const v1::GenerateRequest& request,
                        const std::function<bool(const v1::GenerateEvent&)>& on_event);
  // From any thread: ends the Generate that runs, or the next one, with CANCELLED.
  void CancelGenerate();

  absl::StatusOr<v1::TokenizeReply> Tokenize(const v1::TokenizeRequest& request);
  absl::StatusOr<v1::DetokenizeReply> Detokenize(const v1::DetokenizeRequest& request);

  absl::StatusOr<v1::ListModelsReply> ListModels();

  using OnSwitchEvent = std::function<bool(const v1::SwitchEvent&)>;
  absl::Status Switch(const std::string& model, const OnSwitchEvent& on_event);
  absl::Status Load(const std::string& model, const OnSwitchEvent& on_event);
  absl::Status Unload(const std::string& model);
  absl::StatusOr<v1::PrefetchReply> Prefetch(const std::string& model);
  absl::Status Pin(const std::string& model, bool pinned);
  absl::StatusOr<v1::Status> GetStatus();
  absl::StatusOr<v1::ReloadConfigReply> ReloadConfig();

  // A call failed because the connection broke, and not by the server's word.
  bool connection_lost() const;

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Connects and runs `use`. Exit code 2 if the endpoint's files hold something else, 3 without a
// connection, or when it is lost on the way.
int WithClient(const Endpoint& server, const std::function<int(Client&)>& use);

}  // namespace switchyard::cli
