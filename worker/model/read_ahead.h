#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/image_blocks.h"

namespace switchyard::worker {

// Reads blocks [first, end) of an image into a ring of memory, in order and on threads of its own,
// ahead of whoever takes them. A ring that holds the image is the image.
class ReadAhead {
 public:
  // `ring` is whole blocks, or as large as the image; it stays until destruction, which cuts the
  // reading short. Block b lies at SlotOf(b).
  ReadAhead(const ImageBlocks& image, uint64_t first, uint64_t end, std::span<std::byte> ring);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Waits until `block` and all before it are there, and returns how many there are by then from
  // block 0 on. `wanted` is asked now and after each Wake; CANCELLED when it says no. Else the
  // error of the first block that could not be read, if it is among them.
  absl::StatusOr<uint64_t> Await(uint64_t block, const std::function<bool()>& wanted);
  void Wake();
  // What lies before `block` is not needed any more: its slots are read into again.
  void Release(uint64_t block);

  std::byte* SlotOf(uint64_t block) const { return ring_.data() + block % slots_ * kChecksumBlock; }
  uint64_t slots() const { return slots_; }

 private:
  void Work(size_t depth);
  bool MayTake() const;  // mu_ held: there is a block to read, and a slot for it

  const ImageBlocks& image_;
  const std::span<std::byte> ring_;
  const uint64_t slots_;
  const uint64_t end_;

  std::mutex mu_;
  std::condition_variable room_, arrived_;
  std::vector<bool> done_;  // by slot: read, and not among the leading ones yet
  uint64_t next_;           // to be read
  uint64_t leading_;        // all before it are there
  uint64_t released_;
  bool stop_ = false;
  uint64_t failed_ = std::numeric_limits<uint64_t>::max();  // the first that could not be read
  absl::Status status_;                                     // why
  std::vector<std::thread> threads_;
};

}  // namespace switchyard::worker
