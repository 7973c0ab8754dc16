#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "switchyard/v1/worker.pb.h"
#include "worker/outbox.h"

namespace switchyard::worker {

// The connection: one stream of one gRPC server without a port. What is sent before the supervisor
// has opened the stream waits. Nothing is read of it before Listen: a worker tells that it lives
// long before it can do anything.
class Service final : public Outbox {
 public:
  // Both are called on the thread that polls for gRPC and must not block. `closed`: the supervisor
  // ended the stream or is gone, once.
  struct Callbacks {
    std::function<void(v1::ToWorker)> message;
    std::function<void()> closed;
  };

  explicit Service(Callbacks callbacks);
  ~Service() override;

  // Serves on a connected socket. Once.
  absl::Status Start(UniqueFd connection);
  // Messages are handed on from now on. Once, after Start.
  void Listen();
  void Send(v1::FromWorker message) override;
  // Sends what is queued, for as long as the peer reads, ends the stream and the server. No
  // callback runs afterwards. Not from a callback.
  void Stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::worker
