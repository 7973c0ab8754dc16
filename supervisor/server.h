#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "rpc/call_queue.h"
#include "supervisor/credentials.h"
#include "supervisor/health.h"
#include "supervisor/router.h"
#include "supervisor/server_control.h"

namespace switchyard::supervisor {

// The gRPC server: Inference, Control, health and reflection, on connections that it is given.
class Server {
 public:
  struct Options {
    v1::SupervisorConfig::ControlAccess control = v1::SupervisorConfig::LOOPBACK;
    uint64_t sink_limit_bytes = 1 << 20;   // the router's
    uint64_t request_memory = UINT64_MAX;  // bytes: see RequestMemory
    std::string socket;                    // the path of the Unix socket, for messages
  };
  struct Parts {
    EventLoop* loop;
    Router* router;
    Health* health;
    ReloadFunction reload;
    // Told of who has brought the token, where there is one: on the queue's thread, or null.
    std::function<void(const std::string& peer)> proved;
  };

  // The queue runs, nothing is served yet. With credentials, connections over TCP speak TLS, and
  // calls there bring the token. A connection without a call for `idle` is told to go, and closed.
  static absl::StatusOr<std::unique_ptr<Server>> Create(const Credentials& credentials,
                                                        Nanos idle = 15 * 60 * kSecond);
  // Waits for whoever uses the queue.
  ~Server();

  // Of clients' calls, and for the streams to the workers.
  CallQueue* queue();

  // Begins to serve. Once.
  void Serve(Parts parts, Options options);
  void AddTcpConnection(UniqueFd connection);
  void AddUnixConnection(UniqueFd connection);
  // Calls that come from now on are UNAVAILABLE: for when there is nobody to answer them.
  void RefuseCalls();
  // Blocks until the connections have ended: cuts off, after `grace`, the calls that have not. No
  // task runs meanwhile. The destructor waits for what is left of them; the caller keeps a way to
  // exit of its own, should gRPC not let go of it.
  void Shutdown(Nanos grace);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::supervisor
