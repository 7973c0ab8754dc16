#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/strings/string_view.h"
#include "common/unique_fd.h"
#include "supervisor/connection_count.h"
#include "supervisor/event_loop.h"

namespace switchyard::supervisor {

// Accepts connections and hands them on. gRPC 1.51's own listener never accepts again once `accept`
// has failed for want of descriptors; this one gives up a reserve descriptor to refuse the
// connection, and goes on.
class AcceptLoop {
 public:
  static constexpr size_t kMostConnections = 1024;
  // How many connections a process may take that may have so many descriptors: each takes two, and
  // workers, masters, planners and operators need some.
  static size_t MostConnections(uint64_t descriptors);
  // How many of these may be such as have to prove themselves, and have not. A further one takes
  // the place of the oldest: strangers are in each other's way, and in nobody else's.
  static size_t MostUnproved(size_t connections);

  struct Options {
    // Unix socket: only our own user, root, and members of `group`, but none of our workers.
    bool check_peer = false;
    size_t max_connections = kMostConnections;
    gid_t group = 0;
    Nanos proves_within = 0;  // see ConnectionCount
  };
  AcceptLoop(EventLoop* loop, UniqueFd listener, Options options, ConnectionCount* connections,
             std::function<void(UniqueFd)> accepted);
  ~AcceptLoop();

 private:
  void AcceptReady();
  bool Take(UniqueFd connection);
  bool MakeRoom();
  bool PeerMayConnect(int connection);
  void RefuseForWantOfDescriptors();
  void TellStarved(absl::string_view why);
  void Rest();

  EventLoop* const loop_;
  const Options options_;
  ConnectionCount* const connections_;
  const std::function<void(UniqueFd)> accepted_;
  UniqueFd listener_;
  UniqueFd reserve_;  // of no use but to be closed when there are no more descriptors
  std::unique_ptr<EventLoop::Watch> watch_;  // destroyed before listener_
  Timers::Id retry_ = 0;                     // 0: none
  uint64_t refused_ = 0;
  uint64_t strangers_ = 0;
  uint64_t starved_ = 0;
};

}  // namespace switchyard::supervisor
