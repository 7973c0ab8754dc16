#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>

#include "worker/device/weight_source.h"
#include "worker/model/image_blocks.h"
#include "worker/model/read_ahead.h"

namespace switchyard::worker {

// An image without a master: each growth reads it from the disk, through a ring of host memory. A
// block is copied to the device while those behind it are being read.
class StreamedSource final : public WeightSource {
 public:
  // Opens the image anew after a block has proved damaged; making it again may take long, and ends
  // when `wanted` says no.
  using Reopen = std::function<absl::StatusOr<std::shared_ptr<const ImageBlocks>>(
      const std::function<bool()>& wanted)>;

  // `ring`: at least two blocks; it stays until destruction.
  StreamedSource(std::shared_ptr<const ImageBlocks> image, std::span<std::byte> ring,
                 Reopen reopen);
  ~StreamedSource() override;

  void Expect(uint64_t begin, uint64_t end) override;
  absl::StatusOr<std::span<const std::byte>> Take(uint64_t offset, uint64_t most,
                                                  const std::function<bool()>& wanted) override;
  bool lends() const override { return true; }
  void Launched(std::shared_ptr<Event> copied) override;
  void Wake() override;

 private:
  // A copy that may still be reading the ring.
  struct Loan {
    uint64_t end = 0;  // of the bytes, in the image
    std::shared_ptr<Event> copied;
  };

  absl::StatusOr<std::span<const std::byte>> TakeOnce(uint64_t offset, uint64_t most,
                                                      const std::function<bool()>& wanted);
  void Restart(uint64_t begin);
  void EndFirstLoan();

  std::shared_ptr<const ImageBlocks> image_;
  const std::span<std::byte> ring_;
  const Reopen reopen_;
  uint64_t next_ = 0;  // offset of the Take that is expected
  uint64_t end_ = 0;   // what is read ahead to
  std::deque<Loan> loans_;
  std::mutex mu_;                     // of the pointer, for Wake
  std::unique_ptr<ReadAhead> ahead_;  // null: nothing is being read
};

}  // namespace switchyard::worker
