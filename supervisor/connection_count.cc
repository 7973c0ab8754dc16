#include "supervisor/connection_count.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <utility>

#include "common/check.h"

namespace switchyard::supervisor {

ConnectionCount::ConnectionCount(EventLoop* loop) : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  SY_CHECK(epoll_.valid());
  watch_ = loop->WatchReadable(epoll_.get(), [this] { OnHangUps(); });
}

absl::Status ConnectionCount::Add(int fd) {
  UniqueFd duplicate(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!duplicate.valid()) return ErrnoStatus("duplicating a connection's descriptor");
  const int number = duplicate.get();
  epoll_event event{};
  event.events = 0;  // hang-up and error are always reported
  event.data.fd = number;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, number, &event) != 0)
    return ErrnoStatus("epoll_ctl");
  open_.emplace(number, std::move(duplicate));
  return absl::OkStatus();
}

void ConnectionCount::OnHangUps() {
  epoll_event events[64];
  const int count = ::epoll_wait(epoll_.get(), events, 64, 0);
  for (int i = 0; i < count; ++i) open_.erase(events[i].data.fd);
}

}  // namespace switchyard::supervisor
