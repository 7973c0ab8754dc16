#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace switchyard::supervisor {

// Who is at the other end of a Unix socket, as of when it connected.
struct UnixPeer {
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;
  std::vector<gid_t> groups;  // supplementary
};

absl::StatusOr<UnixPeer> ReadUnixPeer(int connection);

// Our own user, root, and members of the socket's group.
bool MayConnect(const UnixPeer& peer, uid_t our_user, gid_t socket_group);

// What /proc/PID/status says of a process.
struct ProcessFacts {
  pid_t parent = 0;
  bool may_gain_privileges = false;  // no_new_privs is not set
};
std::optional<ProcessFacts> ReadProcessFacts(pid_t pid);  // nothing: it has ended
using FactsReader = absl::FunctionRef<std::optional<ProcessFacts>(pid_t)>;

// Whether a process is one of our workers or planners, or was started by one, or left behind by it.
// Pure. Nobody of these gets rid of no_new_privs, nor out of our descendants: we take in what they
// leave (PR_SET_CHILD_SUBREAPER). Who has ended counts as one: another may hold what it opened.
// That its number has gone to somebody else since it connected is not seen.
bool IsOurWorkers(pid_t pid, pid_t our_pid, FactsReader read = ReadProcessFacts);

// Of gRPC's name for a client, as "unix:", "ipv4:127.0.0.1:4711", "ipv6:%5B::1%5D:4711".
bool IsUnixPeer(const std::string& peer);
bool IsLocalPeer(const std::string& peer);  // on this machine: a Unix socket, or loopback
// Its address and port, "127.0.0.1:4711", "[::1]:4711"; "" for what is neither of TCP's. An IPv4
// address that came over IPv6 is one of IPv4, and a link's name is left out.
std::string AddressOf(const std::string& peer);
// The same of a connection's other end.
std::string AddressOfPeer(int connection);

}  // namespace switchyard::supervisor
