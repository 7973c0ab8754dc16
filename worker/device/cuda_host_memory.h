#pragma once

// Host memory that the device copies from and to at the bus's rate.

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

#include "absl/status/status.h"

namespace switchyard::worker {

// Registers ranges of host memory with CUDA, slice by slice: small ranges at once, masters on a
// thread of its own, so that neither serving nor a switch waits for the whole. A copy waits
// until registration, which goes from the front, has passed what it reads. Ranges that come before
// there is a context wait for Start. Memory that cannot be registered is copied all the same, at
// the rate of pageable memory.
class CudaHostMemory {
 public:
  CudaHostMemory() = default;
  ~CudaHostMemory();
  CudaHostMemory(const CudaHostMemory&) = delete;
  CudaHostMemory& operator=(const CudaHostMemory&) = delete;

  void Start();  // there is a context now
  void Register(const void* data, uint64_t bytes);
  // Cuts a registration under way short. Copies that were launched have ended.
  absl::Status Unregister(const void* data);

  // Calls with pieces of [host, host + bytes) that a single copy may read: within one slice, and
  // registered by then if the range is, of which `registered` tells: then the device's threads can
  // read it, too.
  absl::Status ForEachPiece(
      const void* host, uint64_t bytes,
      const std::function<absl::Status(uint64_t offset, uint64_t bytes, bool registered)>& copy);

 private:
  struct Range {
    std::byte* data = nullptr;
    uint64_t bytes = 0;
    uint64_t done = 0;       // bytes of slices dealt with: registered, unless `failed`
    bool failed = false;     // from `done` on it stays as it is
    bool dropped = false;    // about to be unregistered
    bool busy = false;       // the thread is working on a slice
    bool read_only = false;  // the mapping is
    int waiting = 0;         // copies that wait for slices
    bool settled() const { return failed || done == bytes; }
  };

  void Work();
  void RegisterSlice(Range& range, std::unique_lock<std::mutex>& lock);
  Range* FindHolding(const std::byte* at);
  Range* NextUnsettled();

  std::mutex mu_;
  std::condition_variable work_, changed_;
  std::list<Range> ranges_;
  bool started_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace switchyard::worker
