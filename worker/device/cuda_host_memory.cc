#include "worker/device/cuda_host_memory.h"

#include <cuda_runtime.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "common/checked.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/device/cuda_driver.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif

namespace switchyard::worker {
namespace {

// Chunks and the pieces that they are copied in are powers of two or end at the range's end, so
// that a piece of a master lies within one slice.
constexpr uint64_t kSliceBytes = uint64_t{256} << 20;
// Registered by the caller, who is about to use it.
constexpr uint64_t kAtOnceBytes = uint64_t{32} << 20;
constexpr int kTouchingThreads = 4;

// Maps the pages into this process, several threads at once: the driver would fault them in one by
// one. Advice: where the kernel does not know it, registering does the same, slowly.
void TouchPages(std::byte* data, uint64_t bytes, bool read_only) {
  const uint64_t part = RoundUp(CeilDiv(bytes, kTouchingThreads), 4096);
  std::vector<std::thread> threads;
  for (uint64_t at = 0; at < bytes; at += part) {
    threads.emplace_back([=] {
      madvise(data + at, std::min(part, bytes - at),
              read_only ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
    });
  }
  for (std::thread& each : threads) each.join();
}

cudaError_t TryRegister(std::byte* data, uint64_t bytes, bool read_only) {
  const unsigned int flags =
      cudaHostRegisterPortable | (read_only ? cudaHostRegisterReadOnly : cudaHostRegisterDefault);
  const cudaError_t error = cudaHostRegister(data, bytes, flags);
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error;
}

}  // namespace

CudaHostMemory::~CudaHostMemory() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void CudaHostMemory::Start() {
  std::lock_guard lock(mu_);
  if (started_) return;
  started_ = true;
  thread_ = std::thread([this] { Work(); });
}

void CudaHostMemory::Register(const void* data, uint64_t bytes) {
  std::unique_lock lock(mu_);
  ranges_.push_back({static_cast<std::byte*>(const_cast<void*>(data)), bytes});
  Range& range = ranges_.back();
  if (started_ && bytes <= kAtOnceBytes) return RegisterSlice(range, lock);
  work_.notify_all();
}

absl::Status CudaHostMemory::Unregister(const void* data) {
  std::unique_lock lock(mu_);
  auto range = std::find_if(ranges_.begin(), ranges_.end(),
                            [data](const Range& each) { return each.data == data; });
  if (range == ranges_.end()) return absl::OkStatus();
  range->dropped = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return !range->busy && range->waiting == 0; });
  std::list<Range> gone;
  gone.splice(gone.end(), ranges_, range);
  // Steps and other models' copies need the lock, and a master has hundreds of slices.
  lock.unlock();
  absl::Status status;
  for (uint64_t at = 0; at < gone.front().done; at += kSliceBytes) {
    absl::Status unregistered =
        CudaStatus(cudaHostUnregister(gone.front().data + at), "cudaHostUnregister");
    if (status.ok()) status = unregistered;
  }
  return status;
}

CudaHostMemory::Range* CudaHostMemory::FindHolding(const std::byte* at) {
  for (Range& range : ranges_) {
    if (at >= range.data && at < range.data + range.bytes) return &range;
  }
  return nullptr;
}

absl::Status CudaHostMemory::ForEachPiece(
    const void* host, uint64_t bytes,
    const std::function<absl::Status(uint64_t offset, uint64_t bytes, bool registered)>& copy) {
  const auto* begin = static_cast<const std::byte*>(host);
  for (uint64_t at = 0; at < bytes;) {
    uint64_t piece = bytes - at;
    bool registered = false;
    {
      std::unique_lock lock(mu_);
      if (Range* range = FindHolding(begin + at); range != nullptr) {
        const uint64_t offset = begin + at - range->data;
        const uint64_t slice_end = std::min((offset / kSliceBytes + 1) * kSliceBytes, range->bytes);
        piece = std::min(piece, slice_end - offset);
        ++range->waiting;
        changed_.wait(lock, [&] {
          return range->done >= slice_end || range->failed || range->dropped || !started_;
        });
        registered = range->done >= slice_end && !range->dropped;
        if (--range->waiting == 0 && range->dropped) changed_.notify_all();
      }
    }
    RETURN_IF_ERROR(copy(at, piece, registered));
    at += piece;
  }
  return absl::OkStatus();
}

// ---- The thread

// The smallest: a sequence that is being paused does not wait for a master of gigabytes.
CudaHostMemory::Range* CudaHostMemory::NextUnsettled() {
  Range* next = nullptr;
  for (Range& range : ranges_) {
    if (range.settled() || range.dropped || range.busy) continue;
    if (next == nullptr || range.bytes < next->bytes) next = &range;
  }
  return next;
}

void CudaHostMemory::Work() {
  std::unique_lock lock(mu_);
  while (true) {
    work_.wait(lock, [this] { return stop_ || NextUnsettled() != nullptr; });
    if (stop_) return;
    RegisterSlice(*NextUnsettled(), lock);
  }
}

void CudaHostMemory::RegisterSlice(Range& range, std::unique_lock<std::mutex>& lock) {
  std::byte* const data = range.data + range.done;
  const uint64_t bytes = std::min(kSliceBytes, range.bytes - range.done);
  bool read_only = range.read_only;
  range.busy = true;
  lock.unlock();
  TouchPages(data, bytes, read_only);
  cudaError_t error = TryRegister(data, bytes, read_only);
  if (error != cudaSuccess && !read_only) {
    // A mapping that may not be written, as a sealed master's, says so in this way; one that was
    // being filled may have become one.
    read_only = true;
    TouchPages(data, bytes, read_only);
    error = TryRegister(data, bytes, read_only);
  }
  lock.lock();
  range.busy = false;
  range.read_only = read_only;
  if (error == cudaSuccess) {
    range.done += bytes;
  } else {
    range.failed = true;
    LogWarning("host memory cannot be registered, so copies of ",
               HumanBytes(range.bytes - range.done), " are slow: ", cudaGetErrorString(error));
  }
  changed_.notify_all();
}

}  // namespace switchyard::worker
