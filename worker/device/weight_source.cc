#include "worker/device/weight_source.h"

#include <algorithm>

namespace switchyard::worker {

void MasterSource::SetReady(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mu_);
  ready_ = std::max(ready_, bytes);
  changed_.notify_all();
}

void MasterSource::Wake() {
  std::lock_guard<std::mutex> lock(mu_);
  changed_.notify_all();
}

// All of it or nothing: many small copies are slower than one.
absl::StatusOr<std::span<const std::byte>> MasterSource::Take(uint64_t offset, uint64_t most,
                                                              const std::function<bool()>& wanted) {
  std::unique_lock<std::mutex> lock(mu_);
  while (ready_ < offset + most) {
    if (!failed_.ok()) return failed_;
    if (!wanted()) return absl::CancelledError("the bytes are not wanted any more");
    changed_.wait(lock);
  }
  return master_.subspan(offset, most);
}

}  // namespace switchyard::worker
