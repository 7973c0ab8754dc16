#include "worker/model/streamed_source.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::worker {

StreamedSource::StreamedSource(std::shared_ptr<const ImageBlocks> image, std::span<std::byte> ring,
                               Reopen reopen)
    : image_(std::move(image)),
      ring_(ring.first(ring.size() / kChecksumBlock * kChecksumBlock)),
      reopen_(std::move(reopen)) {}

StreamedSource::~StreamedSource() {
  while (!loans_.empty()) EndFirstLoan();
}

void StreamedSource::Expect(uint64_t begin, uint64_t end) {
  if (ahead_ != nullptr && begin == next_ && end == end_) return;
  end_ = end;
  Restart(begin);
}

// The ring is read into again, so nobody may be copying from it.
void StreamedSource::Restart(uint64_t begin) {
  while (!loans_.empty()) EndFirstLoan();
  std::unique_ptr<ReadAhead> gone;
  {
    std::lock_guard lock(mu_);
    gone = std::move(ahead_);
  }
  gone.reset();  // ends its reads
  next_ = begin;
  auto ahead = std::make_unique<ReadAhead>(*image_, begin / kChecksumBlock,
                                           CeilDiv(end_, kChecksumBlock), ring_);
  std::lock_guard lock(mu_);
  ahead_ = std::move(ahead);
}

absl::StatusOr<std::span<const std::byte>> StreamedSource::Take(
    uint64_t offset, uint64_t most, const std::function<bool()>& wanted) {
  auto taken = TakeOnce(offset, most, wanted);
  if (taken.ok()) return taken;
  absl::Status why = taken.status();
  if (absl::IsDataLoss(why)) {
    LogWarning("reading the image: ", why.ToString());
    auto again = reopen_(wanted);
    why = again.status();
    if (again.ok()) {
      std::lock_guard lock(mu_);
      ahead_.reset();
      image_ = *std::move(again);
    }
  }
  if (why.ok()) {
    Restart(offset);
    taken = TakeOnce(offset, most, wanted);
    if (taken.ok()) return taken;
    why = taken.status();
  }
  // The next growth begins anew.
  std::lock_guard lock(mu_);
  ahead_.reset();
  return why;
}

absl::StatusOr<std::span<const std::byte>> StreamedSource::TakeOnce(
    uint64_t offset, uint64_t most, const std::function<bool()>& wanted) {
  if (offset != next_ || ahead_ == nullptr) Restart(offset);
  const uint64_t block = offset / kChecksumBlock;
  absl::StatusOr<uint64_t> there = ahead_->Await(block, [] { return false; });
  if (absl::IsCancelled(there.status())) {
    // It has to be waited for: what lies before it is given back first, as it may need the room.
    while (!loans_.empty()) EndFirstLoan();
    there = ahead_->Await(block, wanted);
  }
  RETURN_IF_ERROR(there.status());
  // As far as the ring goes on, and not all of it at once: reading goes on while copies do.
  const uint64_t slot = block % ahead_->slots();
  const uint64_t in_ring = (block + ahead_->slots() - slot) * kChecksumBlock;
  const uint64_t quarter = (block + std::max<uint64_t>(ahead_->slots() / 4, 1)) * kChecksumBlock;
  const uint64_t end =
      std::min({offset + most, *there * kChecksumBlock, in_ring, quarter, image_->bytes()});
  next_ = end;
  return std::span<const std::byte>(ahead_->SlotOf(block) + offset % kChecksumBlock, end - offset);
}

void StreamedSource::Launched(std::shared_ptr<Event> copied) {
  loans_.push_back({next_, std::move(copied)});
  // Half of the ring may be on its way to the device.
  const uint64_t half = ring_.size() / 2;
  while (!loans_.empty() && next_ - loans_.front().end >= half) EndFirstLoan();
}

// If its copy failed, whoever waits for the chunk's event hears of it.
void StreamedSource::EndFirstLoan() {
  loans_.front().copied->Synchronize().IgnoreError();
  const uint64_t end = loans_.front().end;
  loans_.pop_front();
  if (ahead_ != nullptr) ahead_->Release(end / kChecksumBlock);
}

void StreamedSource::Wake() {
  std::lock_guard lock(mu_);
  if (ahead_ != nullptr) ahead_->Wake();
}

}  // namespace switchyard::worker
