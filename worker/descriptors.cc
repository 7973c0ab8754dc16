#include "worker/descriptors.h"

#include <sys/socket.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::worker {

Descriptors::Descriptors(UniqueFd socket)
    : socket_(std::move(socket)), thread_([this] { Receive(); }) {}

Descriptors::~Descriptors() {
  ::shutdown(socket_.get(), SHUT_RDWR);  // ends the thread's read
  thread_.join();
}

void Descriptors::Receive() {
  while (true) {
    auto received = ReceiveFd(socket_.get());
    std::lock_guard lock(mutex_);
    changed_.notify_all();
    if (!received.ok()) {
      closed_ = true;
      return;
    }
    if (given_up_.erase(received->second) > 0) continue;
    received_.insert_or_assign(received->second, std::move(received->first));
  }
}

absl::StatusOr<UniqueFd> Descriptors::Take(uint64_t tag, Nanos timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::nanoseconds(timeout),
                    [&] { return closed_ || received_.contains(tag); });
  auto found = received_.find(tag);
  if (found == received_.end()) {
    if (closed_) return absl::UnavailableError("descriptor socket: the supervisor is gone");
    given_up_.insert(tag);
    return absl::DeadlineExceededError(absl::StrCat("no descriptor of master ", tag, " arrived in ",
                                                    timeout / kMillisecond, " ms"));
  }
  UniqueFd fd = std::move(found->second);
  received_.erase(found);
  return fd;
}

}  // namespace switchyard::worker
