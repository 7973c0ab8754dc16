#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>
#include <time.h>

#include <chrono>
#include <numeric>

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

TEST(ThreadPoolTest, IdleCostsNothing) {
  ThreadPool pool(4);
  pool.ParallelFor(4, 1, [](int, int64_t, int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto cpu_seconds = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(cpu_seconds() - before, 0.005);
}

}  // namespace
}  // namespace switchyard::kernels
