#pragma once

// A device behind one interface: `cpu` here, CUDA beside it. Nothing above this folder knows which.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard::worker {

// A cudaStream_t; null on the CPU, where work has finished when a call returns (kernels::Stream).
using StreamHandle = void*;

// Pages of the `cpu` device. Planning needs the size before there is a device.
constexpr uint64_t kCpuPageBytes = 4096;
// Of a GPU: what physical memory comes in.
constexpr uint64_t kCudaPageBytes = uint64_t{2} << 20;

// Reserved device addresses of which parts are committed. Addresses never change, so captured
// graphs and bound weights stay valid over any number of commits and releases.
class Arena {
 public:
  virtual ~Arena() = default;
  virtual std::byte* base() const = 0;
  virtual uint64_t reserved_bytes() const = 0;
  // Offsets and sizes are multiples of the device's page_bytes, here and below.
  // Makes [offset, offset + bytes) usable; contents undefined. RESOURCE_EXHAUSTED if the device has
  // no room; then nothing of the range is committed. Committing what is committed is an error of
  // ours.
  virtual absl::Status Commit(uint64_t offset, uint64_t bytes) = 0;
  // Gives the memory back, really. Nothing may be using the range.
  virtual absl::Status Release(uint64_t offset, uint64_t bytes) = 0;
  virtual uint64_t committed_bytes() const = 0;
};

// Bytes of the fixed part of the lease.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() const = 0;
};

// A point in a stream's work.
class Event {
 public:
  virtual ~Event() = default;
  virtual absl::Status Synchronize() = 0;  // blocks the host until the point is reached
};

// A stretch of a stream's work that was recorded once, to be launched again as one.
class Graph {
 public:
  virtual ~Graph() = default;
  // After what was launched on the stream before, and before what comes. All memory that the work
  // touches is committed: one touch of an unmapped address ruins a GPU's context.
  virtual absl::Status Launch(StreamHandle stream) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual uint64_t page_bytes() const = 0;  // granularity of every arena

  virtual absl::StatusOr<std::unique_ptr<Arena>> Reserve(uint64_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(uint64_t bytes) = 0;  // zeroed

  virtual StreamHandle compute_stream() = 0;
  virtual StreamHandle copy_stream() = 0;
  // Beside copy_stream: what is uploaded here is read by the device's own threads where host memory
  // is registered, while the copy engine is busy otherwise. copy_stream where there is no such way.
  virtual StreamHandle reading_stream() = 0;
  // Host to device and back, in the order of the stream. Host memory stays valid until
  // synchronized.
  virtual absl::Status Upload(void* device, const void* host, uint64_t bytes,
                              StreamHandle stream) = 0;
  virtual absl::Status Download(void* host, const void* device, uint64_t bytes,
                                StreamHandle stream) = 0;
  virtual absl::Status CopyOnDevice(void* to, const void* from, uint64_t bytes,
                                    StreamHandle stream) = 0;
  virtual absl::StatusOr<std::unique_ptr<Event>> Record(StreamHandle stream) = 0;
  // Work launched on `stream` from now on waits for the event.
  virtual absl::Status Wait(StreamHandle stream, Event& event) = 0;
  virtual absl::Status Synchronize(StreamHandle stream) = 0;

  virtual bool has_graphs() const = 0;
  // Records what `launch` launches on `stream` instead of running it. Every host argument is kept
  // as it was; what is read through device pointers may change between launches. `launch` only
  // launches, and has run before, so that nothing is loaded or allocated on the way. Only on a
  // device that has graphs.
  virtual absl::StatusOr<std::unique_ptr<Graph>> Capture(
      StreamHandle stream, const std::function<absl::Status()>& launch) = 0;

  // Makes host memory fast to copy from (cudaHostRegister); nothing to do on the CPU.
  virtual absl::Status RegisterHost(const void* data, uint64_t bytes) = 0;
  virtual absl::Status UnregisterHost(const void* data) = 0;
};

// `threads`: for copies; 0 is one per usable core.
std::unique_ptr<Device> MakeCpuDevice(int threads);

}  // namespace switchyard::worker
