#include "supervisor/connection_count.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "supervisor/peer.h"

namespace switchyard::supervisor {

namespace {

constexpr uint64_t kToldEvery = 1000;  // strangers must not fill the log

}  // namespace

ConnectionCount::ConnectionCount(EventLoop* loop)
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), loop_(loop) {
  SY_CHECK(epoll_.valid());
  watch_ = loop->WatchReadable(epoll_.get(), [this] { OnHangUps(); });
}

absl::Status ConnectionCount::Add(int fd, Nanos proves_within) {
  UniqueFd duplicate(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!duplicate.valid()) return ErrnoStatus("duplicating a connection's descriptor");
  const int number = duplicate.get();
  epoll_event event{};
  event.events = 0;  // hang-up and error are always reported
  event.data.fd = number;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, number, &event) != 0)
    return ErrnoStatus("epoll_ctl");
  open_[number] = {std::move(duplicate), ++added_, ""};
  if (proves_within > 0) AwaitProof(number, proves_within);
  return absl::OkStatus();
}

void ConnectionCount::AwaitProof(int number, Nanos within) {
  Connection& connection = open_.at(number);
  connection.address = AddressOfPeer(number);
  awaiting_[connection.serial] = number;
  {
    std::lock_guard lock(mutex_);
    unproved_[connection.address] = connection.serial;
    unproved_count_ = unproved_.size();
  }
  loop_->Start(within,
               [this, number, serial = connection.serial] { ShutDownUnproved(number, serial); });
}

void ConnectionCount::Proved(const std::string& peer) {
  if (unproved_count_ == 0) return;
  std::lock_guard lock(mutex_);
  unproved_.erase(AddressOf(peer));
  unproved_count_ = unproved_.size();
}

// Whether it was unproved until now; it is not asked for any more.
bool ConnectionCount::TakeUnproved(const Connection& connection) {
  std::lock_guard lock(mutex_);
  const auto found = unproved_.find(connection.address);
  if (found == unproved_.end() || found->second != connection.serial) return false;
  unproved_.erase(found);
  unproved_count_ = unproved_.size();
  return true;
}

// gRPC closes it, which is heard as any hang-up.
void ConnectionCount::ShutDownUnproved(int number, uint64_t serial) {
  awaiting_.erase(serial);
  const auto found = open_.find(number);
  if (found == open_.end() || found->second.serial != serial) return;  // another by now
  if (!TakeUnproved(found->second)) return;
  TellEnded(found->second, "");
  ::shutdown(number, SHUT_RDWR);
}

bool ConnectionCount::EndOldestUnproved() {
  while (!awaiting_.empty()) {
    const auto oldest = open_.find(awaiting_.begin()->second);
    if (!TakeUnproved(oldest->second)) {
      awaiting_.erase(awaiting_.begin());
      continue;
    }
    TellEnded(oldest->second, ", for a new one");
    ::shutdown(oldest->first, SHUT_RDWR);
    Forget(oldest);  // its place is the new one's at once
    return true;
  }
  return false;
}

void ConnectionCount::TellEnded(const Connection& connection, const char* why) {
  if (shut_down_++ % kToldEvery != 0) return;
  LogWarning("ending a connection from ", connection.address,
             ", which made no call that brings the token", why, " (", shut_down_, " so far)");
}

// Out of the set first: that would keep a duplicate that is closed for as long as gRPC has the
// socket, and tell of it under a number that may be another's by then.
void ConnectionCount::Forget(Open::iterator connection) {
  awaiting_.erase(connection->second.serial);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection->first, nullptr);
  open_.erase(connection);
}

void ConnectionCount::OnHangUps() {
  epoll_event events[64];
  const int count = ::epoll_wait(epoll_.get(), events, 64, 0);
  for (int i = 0; i < count; ++i) {
    const auto ended = open_.find(events[i].data.fd);
    if (ended == open_.end()) continue;
    (void)TakeUnproved(ended->second);
    Forget(ended);
  }
}

}  // namespace switchyard::supervisor
