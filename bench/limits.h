#pragma once

// What this machine can do at most, measured: memory reads, copies, float32 matrix products.

#include <cstddef>
#include <cstdint>
#include <functional>

namespace switchyard::bench {

// Anonymous memory on huge pages where there are some, touched.
class Buffer {
 public:
  explicit Buffer(int64_t bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  char* data_;
  int64_t bytes_;
};

double Now();  // seconds
// Runs f(thread) on every thread at once and returns the seconds from first start to last end.
double TimeThreads(int threads, const std::function<void(int thread)>& f);

// One pass of read kernel `kernel` over [data, data + bytes): nothing but loads, in several
// patterns.
int ReadKernelCount();
const char* ReadKernelName(int kernel);
void ReadPass(int kernel, const char* data, int64_t bytes);

// GB/s of one pass by all threads, the best of the read kernels.
double MeasureRead(const Buffer& buffer, int threads);
// GB/s of bytes copied (each is read once and written once) into memory that is there already, and
// into fresh huge pages.
double MeasureCopy(const Buffer& from, Buffer& to, int threads);
// GB/s at which the kernel hands out fresh huge pages, which it writes full of zeros.
double MeasureFirstTouch(int64_t bytes, int threads);
double MeasureCopyToFreshPages(const Buffer& from, int64_t bytes, int threads);
// float32 GFLOP/s of y[m][n] = x[m][k] w[n][k] by oneDNN; 0 without oneDNN.
double MeasureSgemm(int64_t m, int64_t n, int64_t k);

}  // namespace switchyard::bench
