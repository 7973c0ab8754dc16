#include "supervisor/peer.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"

namespace switchyard::supervisor {
namespace {

constexpr size_t kMostGroups = 65536;  // that Linux lets a process have

absl::StatusOr<std::vector<gid_t>> ReadGroups(int connection) {
  std::vector<gid_t> groups(32);
  for (;;) {
    socklen_t bytes = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (::getsockopt(connection, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) == 0) {
      groups.resize(bytes / sizeof(gid_t));
      return groups;
    }
    // ERANGE says how many there are.
    if (errno != ERANGE || bytes > kMostGroups * sizeof(gid_t)) return ErrnoStatus("SO_PEERGROUPS");
    groups.resize(bytes / sizeof(gid_t));
  }
}

}  // namespace

absl::StatusOr<UnixPeer> ReadUnixPeer(int connection) {
  ucred told{};
  socklen_t bytes = sizeof(told);
  if (::getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &told, &bytes) != 0) {
    return ErrnoStatus("SO_PEERCRED");
  }
  UnixPeer peer{told.uid, told.gid, told.pid, {}};
  ASSIGN_OR_RETURN(peer.groups, ReadGroups(connection));
  return peer;
}

bool MayConnect(const UnixPeer& peer, uid_t our_user, gid_t socket_group) {
  return peer.uid == our_user || peer.uid == 0 || peer.gid == socket_group ||
         std::find(peer.groups.begin(), peer.groups.end(), socket_group) != peer.groups.end();
}

bool IsUnixPeer(const std::string& peer) { return absl::StartsWith(peer, "unix"); }

bool IsLocalPeer(const std::string& peer) {
  for (const char* local : {"unix", "ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:"}) {
    if (absl::StartsWith(peer, local)) return true;
  }
  return false;
}

}  // namespace switchyard::supervisor
