#pragma once

#include <grpcpp/grpcpp.h>

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "switchyard/v1/inference.grpc.pb.h"

namespace switchyard::bench {

// Long answers of a supervisor's model that go on until this goes: what a switch away from it must
// pause.
class LiveClients {
 public:
  explicit LiveClients(v1::Inference::Stub& stub) : stub_(stub) {}
  ~LiveClients();
  LiveClients(const LiveClients&) = delete;
  LiveClients& operator=(const LiveClients&) = delete;

  // One more, whose prompt begins as no other's; returns when its first token is there.
  absl::Status Add(const std::string& model, int prompt_tokens);

 private:
  struct Sequence {
    grpc::ClientContext context;
    std::thread reader;
  };

  v1::Inference::Stub& stub_;
  std::list<Sequence> sequences_;
};

}  // namespace switchyard::bench
