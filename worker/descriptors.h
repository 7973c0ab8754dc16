#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/unique_fd.h"

namespace switchyard::worker {

// Receives the descriptors that the supervisor passes over a socket of their own, and keeps each
// until the command that names it takes it. A thread of its own reads, so that the supervisor never
// blocks.
class Descriptors {
 public:
  explicit Descriptors(UniqueFd socket);
  ~Descriptors();

  // Waits for the descriptor: it was sent before the command, but over another socket.
  // UNAVAILABLE if the peer is gone; DEADLINE_EXCEEDED, and then it is closed when it comes.
  absl::StatusOr<UniqueFd> Take(uint64_t tag, Nanos timeout);

 private:
  void Receive();

  const UniqueFd socket_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, UniqueFd> received_;
  std::set<uint64_t> given_up_;  // nobody will take these
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace switchyard::worker
