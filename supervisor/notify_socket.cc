#include "supervisor/notify_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string_view>
#include <utility>

#include "common/log.h"
#include "common/unique_fd.h"

namespace switchyard::supervisor {
namespace {

constexpr size_t kMostWaiting = 256;

struct Message {
  std::string state;
  UniqueFd fd;
};

struct Waiting {
  std::mutex mutex;
  std::deque<Message> messages;
  bool told = false;           // that some were dropped, since the last time that all were sent
  std::function<void()> wait;  // told that something does
};

Waiting& TheWaiting() {
  static Waiting waiting;
  return waiting;
}

// The length of the address, 0 if there is none: a path, or behind @ an abstract name.
socklen_t AddressOf(std::string_view name, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (name.size() < 2 || name.size() >= sizeof address.sun_path) return 0;
  if (name[0] != '/' && name[0] != '@') return 0;
  std::memcpy(address.sun_path, name.data(), name.size());
  const bool abstract = name[0] == '@';
  if (abstract) address.sun_path[0] = 0;
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + !abstract);
}

void Attach(msghdr& header, int fd) {
  header.msg_controllen = CMSG_SPACE(sizeof fd);
  cmsghdr& control = *CMSG_FIRSTHDR(&header);
  control.cmsg_level = SOL_SOCKET;
  control.cmsg_type = SCM_RIGHTS;
  control.cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(&control), &fd, sizeof fd);
}

// False if the socket is full. Whoever should listen may have gone: then it is as good as sent.
bool Send(std::string_view state, int fd) {
  const char* name = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address;
  const socklen_t length = name != nullptr ? AddressOf(name, address) : 0;
  if (length == 0) return true;
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  iovec text{const_cast<char*>(state.data()), state.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr header{};
  header.msg_name = &address;
  header.msg_namelen = length;
  header.msg_iov = &text;
  header.msg_iovlen = 1;
  header.msg_control = fd >= 0 ? control : nullptr;
  if (fd >= 0) Attach(header, fd);
  return ::sendmsg(socket.get(), &header, MSG_NOSIGNAL) >= 0 ||
         (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS);
}

void SendAll(Waiting& waiting) {
  while (!waiting.messages.empty()) {
    const Message& first = waiting.messages.front();
    if (!Send(first.state, first.fd.valid() ? first.fd.get() : -1)) return;
    waiting.messages.pop_front();
  }
  waiting.told = false;
}

}  // namespace

void Notify(std::string state, int fd) {
  Waiting& waiting = TheWaiting();
  const std::lock_guard lock(waiting.mutex);
  SendAll(waiting);
  if (waiting.messages.empty() && Send(state, fd)) return;
  if (waiting.messages.size() < kMostWaiting) {
    UniqueFd copy(fd >= 0 ? ::fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1);
    waiting.messages.push_back({std::move(state), std::move(copy)});
  } else if (!std::exchange(waiting.told, true)) {
    LogWarning("the service manager does not read what it is told: some of it is dropped");
  }
  if (waiting.wait) waiting.wait();
}

bool SendWaitingNotifications() {
  Waiting& waiting = TheWaiting();
  const std::lock_guard lock(waiting.mutex);
  SendAll(waiting);
  return waiting.messages.empty();
}

void OnWaitingNotifications(std::function<void()> wait) {
  Waiting& waiting = TheWaiting();
  const std::lock_guard lock(waiting.mutex);
  waiting.wait = std::move(wait);
}

}  // namespace switchyard::supervisor
