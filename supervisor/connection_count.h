#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

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

  // `proves_within`, unless it is 0: shut down after that, if Proved has not been called of it. No
  // gRPC 1.51 does that: to it, whoever answers pings, or makes calls that are refused, is a
  // client.
  absl::Status Add(int fd, Nanos proves_within = 0);
  // Somebody at this peer, as gRPC names it, may make calls. From any thread.
  void Proved(const std::string& peer);
  size_t size() const { return open_.size(); }
  // How many of these have not proved themselves, of those that have to.
  size_t unproved() const { return unproved_count_; }
  // Ends the one of these that has been there for longest. False: there is none.
  bool EndOldestUnproved();

 private:
  struct Connection {
    UniqueFd fd;  // a duplicate
    uint64_t serial = 0;
    std::string address;  // of one that has to prove itself
  };
  using Open = std::map<int, Connection>;
  void OnHangUps();
  void Forget(Open::iterator connection);
  void TellEnded(const Connection& connection, const char* why);
  void AwaitProof(int number, Nanos within);
  void ShutDownUnproved(int number, uint64_t serial);
  bool TakeUnproved(const Connection& connection);

  UniqueFd epoll_;
  std::unique_ptr<EventLoop::Watch> watch_;  // destroyed before epoll_
  EventLoop* const loop_;
  Open open_;                         // by number of the duplicate
  std::map<uint64_t, int> awaiting_;  // of those that had to prove themselves, by serial number
  uint64_t added_ = 0;
  uint64_t shut_down_ = 0;

  std::mutex mutex_;
  std::map<std::string, uint64_t> unproved_;  // serial numbers by address
  std::atomic<size_t> unproved_count_ = 0;    // so that whoever has proved itself asks no lock
};

}  // namespace switchyard::supervisor
