#pragma once

// Which prefix of the image is on the device, and how it grows and shrinks.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace switchyard::worker {

// Owns the arena of one model's image. Chunks are committed and copied from the master in execution
// order by a thread of its own, and released from the end, so that residency is always a prefix.
// All methods but WaitFor are for one thread (the engine's); WaitFor too is called there, while the
// copying goes on.
class Residency {
 public:
  static absl::StatusOr<std::unique_ptr<Residency>> Create(Device& device, uint64_t image_bytes,
                                                           uint64_t chunk_bytes);
  ~Residency();

  std::byte* base() const;

  // The master to copy from; null: none, growth is refused. Waits for copies under way first.
  void SetMaster(const std::byte* master);

  // Sets how many bytes of the image shall be resident; rounded down to whole chunks unless it is the
  // whole image. Growth returns at once and goes on in the background; shrinking has happened when this
  // returns (the caller has synchronized the compute stream). A growth under way is cut short first.
  // FAILED_PRECONDITION: growth without a master.
  absl::Status SetTarget(uint64_t bytes);

  uint64_t target_bytes() const;
  uint64_t resident_bytes() const;   // complete prefix, copied
  uint64_t committed_bytes() const;  // what the lease is charged with: whole chunks, also half-copied
  bool settled() const;              // nothing under way
  absl::Status error() const;        // of the last growth; it rolled back to the complete prefix

  // Makes work launched on `stream` from now on see the first `bytes` of the image; on the CPU blocks
  // until they are there. The error of a growth that cannot deliver them; FAILED_PRECONDITION if the
  // target does not hold them.
  absl::Status WaitFor(uint64_t bytes, StreamHandle stream);

  // Called from the copying thread after each chunk and at the end: wakes the engine for progress.
  void SetObserver(std::function<void()> observer);
};

}  // namespace switchyard::worker
