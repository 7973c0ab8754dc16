#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace switchyard::kernels {
namespace {

TEST(ThreadPoolTest, CoversEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    for (const int64_t n : {0, 1, 2, 7, 16, 100, 1001}) {
      for (const int64_t grain : {1, 4, 64, 5000}) {
        std::vector<int> seen(n);
        pool.ParallelFor(n, grain, [&](int thread, int64_t begin, int64_t end) {
          EXPECT_LT(thread, threads);
          EXPECT_LT(begin, end);
          EXPECT_EQ(begin % grain, 0);
          for (int64_t i = begin; i < end; ++i) ++seen[i];
        });
        EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), n);
      }
    }
  }
}

TEST(ThreadPoolTest, ManyShortJobs) {
  ThreadPool pool(4);
  std::vector<int64_t> sums(4 * 8);
  for (int i = 0; i < 2000; ++i) {
    pool.ParallelFor(4, 1, [&](int thread, int64_t begin, int64_t) { sums[thread * 8] += begin; });
  }
  EXPECT_EQ(sums[0] + sums[8] + sums[16] + sums[24], 2000 * (0 + 1 + 2 + 3));
}

// Whether every thread of this process but the caller's sleeps.
bool AllOthersSleep() {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == std::to_string(gettid())) continue;
    std::ifstream file(task.path() / "stat");  // "ID (NAME) STATE ..."
    std::string stat;
    std::getline(file, stat);
    const size_t name_end = stat.rfind(')');
    if (name_end == std::string::npos || stat.substr(name_end, 3) != ") S") return false;
  }
  return true;
}

TEST(ThreadPoolTest, IdleThreadsSleep) {
  ThreadPool pool(4);
  for (int round = 0; round < 3; ++round) {
    pool.ParallelFor(4, 1, [](int, int64_t, int64_t) {});
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!AllOthersSleep()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "a thread of the pool spins";
      std::this_thread::yield();
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
