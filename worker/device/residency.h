#pragma once

// Which prefix of the image is on the device, and how it grows and shrinks.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/device/weight_source.h"

namespace switchyard::worker {

// Owns the arena of one model's image. Chunks are committed and copied from a source (a master,
// which may still be filling, or a file) in execution order by a thread of its own, each as soon as
// its bytes are there, and released from the end, so that residency is always a prefix. At the
// beginning of a growth, when the driver clears what others have just given back and the copy
// engine is half as fast for it, most pieces are copied by the device's threads. SetSource
// and Interrupt are for any thread; all other methods are for one (the engine's), while the copying
// goes on.
class Residency {
 public:
  // `chunk_bytes` is a multiple of the device's page size.
  static absl::StatusOr<std::unique_ptr<Residency>> Create(Device& device, uint64_t image_bytes,
                                                           uint64_t chunk_bytes);
  ~Residency();
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  std::byte* base() const { return arena_->base(); }

  // What to copy from; null: nothing. Returns when nothing is copying from the old one any more.
  // A growth under way goes on from a new source, and fails without one.
  void SetSource(std::shared_ptr<WeightSource> source);

  // Sets how many bytes of the image shall be resident; rounded down to whole chunks unless it is
  // the whole image. Growth returns at once and goes on in the background; shrinking has happened
  // when this returns (the caller has synchronized the compute stream). A growth under way beyond
  // the new target is cut short first. FAILED_PRECONDITION: growth without a source; the target
  // stays as it was.
  absl::Status SetTarget(uint64_t bytes);

  uint64_t target_bytes() const;
  uint64_t resident_bytes() const;  // complete prefix, copied
  uint64_t committed_bytes()
      const;                   // what the lease is charged with: whole chunks, also half-copied
  bool settled() const;        // nothing under way
  absl::Status error() const;  // of the last growth; it rolled back to the complete prefix

  // Makes work launched on `stream` from now on see the first `bytes` of the image; on the CPU
  // blocks until they are there. The error of a growth that cannot deliver them;
  // FAILED_PRECONDITION if the target does not hold them.
  absl::Status WaitFor(uint64_t bytes, StreamHandle stream);
  // Makes a WaitFor that blocks, now or later, return CANCELLED until EndInterrupt: there is
  // something more urgent to do than to wait for weights.
  void Interrupt();
  void EndInterrupt();

  // Called from the copying thread after each chunk and at the end: wakes the engine for progress.
  // Set before the first growth.
  void SetObserver(std::function<void()> observer);

 private:
  // A chunk whose copy has been launched.
  struct Span {
    uint64_t end = 0;
    std::shared_ptr<Event> event;
  };

  Residency(Device& device, std::unique_ptr<Arena> arena, uint64_t image_bytes,
            uint64_t chunk_bytes);

  void CopyLoop();
  // The two things that the copying thread does; each is called and returns with `lock` held.
  void LaunchChunk(std::unique_lock<std::mutex>& lock);
  void FinishChunk(std::unique_lock<std::mutex>& lock);
  absl::Status CopyChunk(uint64_t begin, uint64_t end);
  // Copies a piece of at most `most` bytes and returns how many those were: none if there is
  // another source now. CANCELLED: the chunk is not wanted any more.
  absl::StatusOr<uint64_t> CopyPiece(uint64_t offset, uint64_t most, uint64_t chunk_end);
  absl::StatusOr<uint64_t> CopyFrom(WeightSource& source, uint64_t offset, uint64_t most,
                                    const std::function<bool()>& wanted);
  StreamHandle StreamOfPiece();
  absl::StatusOr<std::shared_ptr<Event>> RecordArrival();  // of all that has been launched
  absl::Status SynchronizeCopies();

  void WakeSource(std::unique_lock<std::mutex>& lock);
  uint64_t ChunkEnd(uint64_t begin) const;
  bool WantsChunk() const;  // mu_ held: there is a chunk to launch
  bool Idle() const;        // mu_ held: the copying thread has nothing in hand
  absl::Status ReleaseDownTo(uint64_t bytes);
  absl::Status ReleaseRange(uint64_t begin, uint64_t end);
  uint64_t GiveBack(uint64_t begin, uint64_t end);

  Device& device_;
  const std::unique_ptr<Arena> arena_;
  const uint64_t image_bytes_;
  const uint64_t chunk_bytes_;

  mutable std::mutex mu_;
  std::condition_variable work_;     // for the copying thread
  std::condition_variable changed_;  // by the copying thread
  std::shared_ptr<WeightSource> source_;
  const WeightSource* taking_from_ = nullptr;  // by the copying thread, without mu_
  uint64_t target_ = 0;
  uint64_t grew_from_ = 0;  // where the growth under way, or the last one, began
  uint64_t resident_ = 0;   // copied
  uint64_t launched_ = 0;   // copied or on their way
  uint64_t committed_ = 0;  // launched_, or more: a chunk that is being launched, or that stays
  std::deque<Span> on_their_way_;
  bool busy_ = false;  // the copying thread works without mu_
  bool stop_ = false;
  bool interrupted_ = false;
  absl::Status error_;
  std::function<void()> observer_;
  // The copying thread's: whether pieces go both ways, whose turn it was, and whether any since
  // RecordArrival went to the device's threads.
  bool both_ways_ = false, any_was_read_ = false;
  int turn_ = 0;
  std::thread thread_;
};

}  // namespace switchyard::worker
