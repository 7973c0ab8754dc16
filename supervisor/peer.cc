#include "supervisor/peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"

namespace switchyard::supervisor {
namespace {

constexpr int kMostGenerations = 256;  // more than any client has, and no more work than that
constexpr int kMostLooks = 3;
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

// Nothing: one of them has ended. If it was in between, its children have another parent now.
std::optional<bool> LookForWorkers(pid_t pid, pid_t our_pid, FactsReader read) {
  for (int generation = 0; generation < kMostGenerations; ++generation) {
    if (pid == our_pid) return true;
    if (pid <= 1) return false;  // the first process, or one that is not in our namespace
    const std::optional<ProcessFacts> facts = read(pid);
    if (!facts) return std::nullopt;
    if (facts->may_gain_privileges) return false;
    pid = facts->parent;
  }
  return true;
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

std::optional<ProcessFacts> ReadProcessFacts(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  pid_t parent = -1;
  bool no_new_privileges = true;  // where the kernel does not say
  for (std::string name, rest; status >> name; std::getline(status, rest)) {
    if (name == "PPid:") status >> parent;
    if (name == "NoNewPrivs:") status >> no_new_privileges;
  }
  if (parent < 0) return std::nullopt;
  return ProcessFacts{parent, !no_new_privileges};
}

bool IsOurWorkers(pid_t pid, pid_t our_pid, FactsReader read) {
  for (int look = 0; look < kMostLooks; ++look) {
    if (const std::optional<bool> is = LookForWorkers(pid, our_pid, read)) return *is;
  }
  return true;
}

bool IsUnixPeer(const std::string& peer) { return absl::StartsWith(peer, "unix"); }

bool IsLocalPeer(const std::string& peer) {
  for (const char* local : {"unix", "ipv4:127.", "ipv6:[::1]:", "ipv6:%5B::1%5D:"}) {
    if (absl::StartsWith(peer, local)) return true;
  }
  return false;
}

std::string AddressOf(const std::string& peer) {
  const bool v4 = absl::StartsWith(peer, "ipv4:"), v6 = absl::StartsWith(peer, "ipv6:");
  if (!v4 && !v6) return "";
  std::string address = absl::StrReplaceAll(peer.substr(5), {{"%5B", "["}, {"%5D", "]"}});
  const size_t link = address.find('%'), end = address.find(']');
  if (link < end && end != std::string::npos) address.erase(link, end - link);
  return address;
}

std::string AddressOfPeer(int connection) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof(storage);
  if (::getpeername(connection, reinterpret_cast<sockaddr*>(&storage), &bytes) != 0) return "";
  char text[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
    ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return absl::StrCat(text, ":", ntohs(v4.sin_port));
  }
  if (storage.ss_family != AF_INET6) return "";
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    ::inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text, sizeof(text));
    return absl::StrCat(text, ":", ntohs(v6.sin6_port));
  }
  ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
  return absl::StrCat("[", text, "]:", ntohs(v6.sin6_port));
}

}  // namespace switchyard::supervisor
