#include "bench/limits.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "common/usable_cores.h"

#ifdef SWITCHYARD_HAVE_DNNL
#include <oneapi/dnnl/dnnl.h>
#endif

namespace switchyard::bench {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

char* MapHuge(int64_t bytes) {
  // Two more megabytes, so that the buffer can begin at a huge page.
  void* map = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  const uintptr_t begin =
      (reinterpret_cast<uintptr_t>(map) + kHugePage - 1) / kHugePage * kHugePage;
  madvise(reinterpret_cast<void*>(begin), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<char*>(begin);
}

// The pages between begin and end go; the address space of a benchmark that ends soon stays.
void Unmap(char* data, int64_t bytes) { munmap(data, bytes); }

// Thread t's part of `bytes`, whole cache lines.
int64_t Border(int64_t bytes, int t, int threads) { return bytes / 64 * t / threads * 64; }

}  // namespace

Buffer::Buffer(int64_t bytes) : data_(MapHuge(bytes)), bytes_(bytes) {
  const int threads = UsableCores();
  TimeThreads(threads, [&](int t) {
    const int64_t begin = Border(bytes_, t, threads), end = Border(bytes_, t + 1, threads);
    std::memset(data_ + begin, 1, end - begin);
  });
}

Buffer::~Buffer() { Unmap(data_, bytes_); }

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double TimeThreads(int threads, const std::function<void(int)>& f) {
  std::atomic<int> ready{0};
  std::vector<double> starts(threads), ends(threads);
  const auto body = [&](int t) {
    ++ready;
    while (ready < threads) std::this_thread::yield();
    starts[t] = Now();
    f(t);
    ends[t] = Now();
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
  body(0);
  for (std::thread& other : others) other.join();
  return *std::max_element(ends.begin(), ends.end()) -
         *std::min_element(starts.begin(), starts.end());
}

double MeasureRead(const Buffer& buffer, int threads) {
  double best = 0;
  for (int kernel = 0; kernel < ReadKernelCount(); ++kernel) {
    const double seconds = TimeThreads(threads, [&](int t) {
      const int64_t begin = Border(buffer.bytes(), t, threads);
      ReadPass(kernel, buffer.data() + begin, Border(buffer.bytes(), t + 1, threads) - begin);
    });
    best = std::max(best, 1e-9 * static_cast<double>(buffer.bytes()) / seconds);
  }
  return best;
}

double MeasureCopy(const Buffer& from, Buffer& to, int threads) {
  const int64_t bytes = std::min(from.bytes(), to.bytes());
  const double seconds = TimeThreads(threads, [&](int t) {
    const int64_t begin = Border(bytes, t, threads), end = Border(bytes, t + 1, threads);
    std::memcpy(to.data() + begin, from.data() + begin, end - begin);
  });
  return 1e-9 * static_cast<double>(bytes) / seconds;
}

double MeasureFirstTouch(int64_t bytes, int threads) {
  constexpr int64_t kHugePage = 2 << 20;
  char* to = MapHuge(bytes);
  const double seconds = TimeThreads(threads, [&](int t) {
    const int64_t end = Border(bytes, t + 1, threads);
    for (int64_t at = Border(bytes, t, threads); at < end; at += kHugePage) to[at] = 1;
  });
  Unmap(to, bytes);
  return 1e-9 * static_cast<double>(bytes) / seconds;
}

double MeasureCopyToFreshPages(const Buffer& from, int64_t bytes, int threads) {
  char* to = MapHuge(bytes);
  const double seconds = TimeThreads(threads, [&](int t) {
    const int64_t begin = Border(bytes, t, threads), end = Border(bytes, t + 1, threads);
    std::memcpy(to + begin, from.data() + begin, end - begin);
  });
  Unmap(to, bytes);
  return 1e-9 * static_cast<double>(bytes) / seconds;
}

double MeasureSgemm(int64_t m, int64_t n, int64_t k) {
#ifdef SWITCHYARD_HAVE_DNNL
  // In huge pages, as our own weights are.
  static std::unique_ptr<Buffer> x, w, y;
  const auto grown = [](std::unique_ptr<Buffer>& buffer, int64_t floats) {
    const int64_t bytes = floats * int64_t{sizeof(float)};
    if (buffer == nullptr || buffer->bytes() < bytes) {
      buffer = std::make_unique<Buffer>(bytes);
      std::fill_n(reinterpret_cast<float*>(buffer->data()), floats, 0.5f);
    }
    return reinterpret_cast<float*>(buffer->data());
  };
  float *xs = grown(x, m * k), *ws = grown(w, n * k), *ys = grown(y, m * n);
  const double start = Now();
  if (dnnl_sgemm('N', 'T', m, n, k, 1, xs, k, ws, k, 0, ys, n) != dnnl_success) {
    return 0;
  }
  return 2e-9 * static_cast<double>(m * n * k) / (Now() - start);
#else
  return 0;
#endif
}

}  // namespace switchyard::bench
