#include "supervisor/listen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::supervisor {
namespace {

constexpr int kBacklog = 4096;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

bool IsLoopback(const SocketAddress& address) {
  if (address.storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address.storage);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address.storage);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

absl::StatusOr<SocketAddress> Resolve(const HostPort& address) {
  const std::string host = address.host == "localhost" ? "127.0.0.1" : address.host;
  SocketAddress result;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&result.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&result.storage);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    result.length = sizeof(*v4);
  } else if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    result.length = sizeof(*v6);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on \"", address.host, "\": give an IP address, or localhost"));
  }
  return result;
}

absl::StatusOr<UniqueFd> NewSocket(int family) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return ErrnoStatus("socket");
  return fd;
}

}  // namespace

absl::Status CheckListen(const HostPort& address, bool secured) {
  ASSIGN_OR_RETURN(const SocketAddress socket_address, Resolve(address));
  if (secured || IsLoopback(socket_address)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("refusing to listen on ", FormatHostPort(address),
                   ": an address that other machines reach needs TLS and a token; give "
                   "--tls-certificate, --tls-key and --token-file, or listen on 127.0.0.1 or ::1"));
}

absl::StatusOr<UniqueFd> ListenTcp(HostPort* address, bool secured) {
  RETURN_IF_ERROR(CheckListen(*address, secured));
  ASSIGN_OR_RETURN(SocketAddress socket_address, Resolve(*address));
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket(socket_address.storage.ss_family));
  // A restart must not wait for the connections of the process before it to time out.
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(fd.get(), socket_address.get(), socket_address.length) != 0 ||
      ::listen(fd.get(), kBacklog) != 0 ||
      ::getsockname(fd.get(), socket_address.get(), &socket_address.length) != 0) {
    return ErrnoStatus(absl::StrCat("listening on ", FormatHostPort(*address)).c_str());
  }
  // sin_port and sin6_port are at the same place.
  address->port = ntohs(reinterpret_cast<sockaddr_in&>(socket_address.storage).sin_port);
  return fd;
}

absl::StatusOr<UniqueFd> ListenUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the path of the Unix socket, ", path, ", is longer than the ",
                     sizeof(address.sun_path) - 1,
                     " bytes that the system allows: choose a shorter --state-dir"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSIGN_OR_RETURN(UniqueFd fd, NewSocket(AF_UNIX));
  ::unlink(path.c_str());
  const mode_t mask = ::umask(0117);
  const int bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  ::umask(mask);
  if (bound != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return ErrnoStatus(absl::StrCat("listening on ", path).c_str());
  }
  return fd;
}

}  // namespace switchyard::supervisor
