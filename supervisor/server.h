#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/unique_fd.h"
#include "supervisor/event_loop.h"
#include "supervisor/health.h"
#include "supervisor/router.h"
#include "supervisor/server_control.h"

namespace switchyard::supervisor {

// The gRPC server: Inference, Control, health and reflection over connections that are handed to
// it.
class Server {
 public:
  struct Options {
    bool control_unix_only = false;
    uint64_t sink_limit_bytes = 1 << 20;  // the router's
  };
  static absl::StatusOr<std::unique_ptr<Server>> Start(EventLoop* loop, Router* router,
                                                       Health* health, ReloadFunction reload,
                                                       Options options);
  ~Server();

  void AddConnection(UniqueFd connection);
  // Blocks until every call has ended: cuts off, after `grace`, those that have not. The caller
  // keeps a way to exit of its own, should gRPC not return.
  void Shutdown(Nanos grace);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::supervisor
