#include "worker/model/ordered_jobs.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "common/usable_cores.h"

namespace switchyard::worker {
namespace {

constexpr size_t kMaxThreads = 16;

class OrderedJobs {
 public:
  OrderedJobs(size_t count, const std::function<absl::Status(size_t)>& run)
      : run_(run), done_(count, false) {}

  absl::Status Run(const std::function<bool(size_t)>& progress) {
    const auto cores = static_cast<size_t>(UsableCores());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < std::min({cores, kMaxThreads, done_.size()}); ++i) {
      threads.emplace_back([this] { Work(); });
    }
    Watch(progress);
    for (std::thread& thread : threads) thread.join();
    return status_;
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    while (next_ < done_.size() && status_.ok()) {
      const size_t job = next_++;
      lock.unlock();
      absl::Status status = run_(job);
      lock.lock();
      if (status_.ok()) status_ = std::move(status);
      done_[job] = true;
      changed_.notify_one();
    }
  }

  // Reports the leading jobs until all are done or something failed.
  void Watch(const std::function<bool(size_t)>& progress) {
    std::unique_lock lock(mutex_);
    size_t leading = 0;
    while (leading < done_.size() && status_.ok()) {
      changed_.wait(lock, [&] { return done_[leading] || !status_.ok(); });
      if (!status_.ok()) return;
      while (leading < done_.size() && done_[leading]) ++leading;
      lock.unlock();
      const bool go_on = !progress || progress(leading);
      lock.lock();
      if (!go_on && status_.ok()) status_ = absl::CancelledError("cancelled");
    }
  }

  const std::function<absl::Status(size_t)>& run_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> done_;
  size_t next_ = 0;
  absl::Status status_;
};

}  // namespace

absl::Status RunInOrder(size_t count, const std::function<absl::Status(size_t)>& run,
                        const std::function<bool(size_t)>& progress) {
  return OrderedJobs(count, run).Run(progress);
}

}  // namespace switchyard::worker
