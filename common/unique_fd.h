#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// Owns a file descriptor; closes it on destruction.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

// Two connected stream sockets, close-on-exec.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> SocketPair();
// Read end, write end; close-on-exec.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> Pipe();

// Sends one descriptor with an 8-byte tag over a Unix stream socket (SCM_RIGHTS).
absl::Status SendFd(int socket, int fd, unsigned long long tag);
// Blocks until a descriptor arrives; UNAVAILABLE when the peer is gone.
absl::StatusOr<std::pair<UniqueFd, unsigned long long>> ReceiveFd(int socket);

// "what: strerror(errno)" with a code that fits errno.
absl::Status ErrnoStatus(const char* what);

}  // namespace switchyard
