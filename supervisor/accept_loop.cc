#include "supervisor/accept_loop.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/peer.h"

namespace switchyard::supervisor {
namespace {

// So many before other events of the loop get their turn.
constexpr int kBatch = 64;
constexpr Nanos kRetry = 100 * kMillisecond;

constexpr uint64_t kToldEvery = 1000;  // refusals: a client in a loop must not fill the log

constexpr uint64_t kOtherDescriptors = 384;
constexpr uint64_t kLeastConnections = 16;

// Whether this user may be that of a worker: only root's can become another.
bool MayBeOurs(uid_t peer, uid_t our_user) { return peer == our_user || our_user == 0; }

UniqueFd OpenReserve() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

size_t AcceptLoop::MostConnections(uint64_t descriptors) {
  const uint64_t room = descriptors - std::min(descriptors, kOtherDescriptors);
  return std::clamp<uint64_t>(room / 2, kLeastConnections, kMostConnections);
}

size_t AcceptLoop::MostUnproved(size_t connections) { return std::max<size_t>(connections / 4, 1); }

AcceptLoop::AcceptLoop(EventLoop* loop, UniqueFd listener, Options options,
                       ConnectionCount* connections, std::function<void(UniqueFd)> accepted)
    : loop_(loop),
      options_(options),
      connections_(connections),
      accepted_(std::move(accepted)),
      listener_(std::move(listener)),
      reserve_(OpenReserve()) {
  watch_ = loop_->WatchReadable(listener_.get(), [this] { AcceptReady(); });
}

AcceptLoop::~AcceptLoop() {
  if (retry_ != 0) loop_->Stop(retry_);
}

void AcceptLoop::AcceptReady() {
  for (int i = 0; i < kBatch; ++i) {
    UniqueFd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection.valid()) {
      if (!Take(std::move(connection))) return Rest();
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      RefuseForWantOfDescriptors();
      return;
    } else if (errno != ECONNABORTED && errno != EINTR) {
      return;  // EAGAIN: all are taken
    }
  }
}

// False: for want of descriptors.
bool AcceptLoop::Take(UniqueFd connection) {
  if (options_.check_peer && !PeerMayConnect(connection.get())) return true;
  if (!MakeRoom()) {
    if (refused_++ % kToldEvery == 0) {
      LogWarning("refusing connections: ", connections_->size(), " are open, which is the limit (",
                 refused_, " refused so far)");
    }
    return true;
  }
  const int on = 1;  // a token must not wait for the acknowledgement of the one before it
  ::setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // no-op on Unix
  if (absl::Status added = connections_->Add(connection.get(), options_.proves_within);
      !added.ok()) {
    TellStarved(added.message());
    return false;
  }
  accepted_(std::move(connection));
  return true;
}

bool AcceptLoop::MakeRoom() {
  const size_t most = options_.max_connections;
  const bool room = connections_->size() < most;
  if (options_.proves_within == 0) return room;
  if (room && connections_->unproved() < MostUnproved(most)) return true;
  return connections_->EndOldestUnproved() || room;
}

bool AcceptLoop::PeerMayConnect(int connection) {
  const absl::StatusOr<UnixPeer> peer = ReadUnixPeer(connection);
  std::string who;
  if (!peer.ok()) {
    who = std::string(peer.status().message());
  } else if (!MayConnect(*peer, ::geteuid(), options_.group)) {
    who = absl::StrCat("user ", peer->uid, ", process ", peer->pid);
  } else if (MayBeOurs(peer->uid, ::geteuid()) && IsOurWorkers(peer->pid, ::getpid())) {
    who = absl::StrCat("a worker, or what it has started: process ", peer->pid);
  } else {
    return true;
  }
  if (strangers_++ % kToldEvery == 0) {
    LogWarning("refusing a connection on the Unix socket from ", who, " (", strangers_,
               " refused so far)");
  }
  return false;
}

void AcceptLoop::TellStarved(absl::string_view why) {
  if (starved_++ % kToldEvery == 0) {
    LogWarning("refusing a connection: ", why, " (", starved_, " refused so far)");
  }
}

// The connection that waits would make the listener readable for ever: it is accepted with the
// reserve's number and closed.
void AcceptLoop::RefuseForWantOfDescriptors() {
  TellStarved("out of file descriptors");
  reserve_.Reset();
  UniqueFd refused(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  refused.Reset();
  reserve_ = OpenReserve();
  Rest();
}

// A moment, since more may wait.
void AcceptLoop::Rest() {
  watch_.reset();
  retry_ = loop_->Start(kRetry, [this] {
    retry_ = 0;
    watch_ = loop_->WatchReadable(listener_.get(), [this] { AcceptReady(); });
  });
}

}  // namespace switchyard::supervisor
