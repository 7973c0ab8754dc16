#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/unique_fd.h"

namespace switchyard::testing {

// In systemd's place: the end of NOTIFY_SOCKET, as long as it lives.
class FakeServiceManager {
 public:
  struct Message {
    std::string text;
    UniqueFd fd;  // that came with it, if one did
  };

  FakeServiceManager() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "@switchyard-test-" + std::to_string(::getpid());
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    bound_ = ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0;
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ~FakeServiceManager() { ::unsetenv("NOTIFY_SOCKET"); }

  bool bound() const { return bound_; }

  // What it was told since the last time. The socket takes a few messages only.
  std::vector<Message> Heard() {
    std::vector<Message> heard;
    for (Message message; Receive(message);) {
      // What comes with a barrier is closed, and that is all.
      if (message.text != "BARRIER=1") heard.push_back(std::move(message));
    }
    return heard;
  }
  // All up to the next barrier, whose descriptor comes last: until it is closed we are not done.
  std::vector<Message> HeardWithBarrier() {
    std::vector<Message> heard;
    while (heard.empty() || heard.back().text != "BARRIER=1") {
      Message message;
      Receive(message) ? heard.push_back(std::move(message)) : std::this_thread::yield();
    }
    return heard;
  }

 private:
  bool Receive(Message& message) {
    char buffer[4096];
    iovec iov{buffer, sizeof buffer};
    alignas(cmsghdr) char control[256] = {};
    msghdr header{};
    header.msg_iov = &iov;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    if (got < 0) return false;
    message = {std::string(buffer, static_cast<size_t>(got)), UniqueFd()};
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
      if (c->cmsg_type != SCM_RIGHTS) continue;
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
      message.fd.Reset(fd);
    }
    return true;
  }

  UniqueFd socket_;
  bool bound_ = false;
};

}  // namespace switchyard::testing
