#pragma once

#include <map>
#include <memory>

#include "absl/status/status.h"
#include "common/unique_fd.h"
#include "supervisor/event_loop.h"

namespace switchyard::supervisor {

// How many client connections are open. Once a socket is handed to gRPC nobody tells us when it is
// closed, so a duplicate of its descriptor is kept and hears the hang-up (gRPC shuts a socket down
// before it closes it). The duplicates sit in an epoll set of their own that wakes for hang-ups
// only: in the loop's own set, every packet of every stream would wake the loop.
class ConnectionCount {
 public:
  explicit ConnectionCount(EventLoop* loop);

  absl::Status Add(int fd);
  size_t size() const { return open_.size(); }

 private:
  void OnHangUps();

  UniqueFd epoll_;
  std::unique_ptr<EventLoop::Watch> watch_;  // destroyed before epoll_
  std::map<int, UniqueFd> open_;             // duplicates by number
};

}  // namespace switchyard::supervisor
