#include "worker/device/residency.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/checked.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

// One copy command. Large enough for the bus's full rate (16 MiB saturate it), small enough that a
// growth from a source that fills is cut short within a millisecond or two. From a complete master
// all of a chunk is launched at once: what is on its way then is up to two chunks.
constexpr uint64_t kPieceBytes = 16 << 20;
// Chunks whose copies may be on their way at once: the next is launched while one arrives.
constexpr size_t kChunksOnTheirWay = 2;
// Of a growth a fifth, which comes while the driver clears as much that others have just given
// back. An H200 clears 300 GiB a second; its copy engine, which else makes 55 GB/s, does 14 to 28
// of them meanwhile, and its threads 40: so one piece of four is the engine's.
constexpr uint64_t kClearedMeanwhile = 5;
constexpr int kPiecesOfTurn = 4;

}  // namespace

absl::StatusOr<std::unique_ptr<Residency>> Residency::Create(Device& device, uint64_t image_bytes,
                                                             uint64_t chunk_bytes) {
  if (chunk_bytes == 0 || chunk_bytes % device.page_bytes() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("chunks of ", chunk_bytes,
                                                   " bytes are not whole pages of ",
                                                   device.page_bytes(), " bytes"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Arena> arena,
                   device.Reserve(RoundUp(image_bytes, device.page_bytes())));
  return std::unique_ptr<Residency>(
      new Residency(device, std::move(arena), image_bytes, chunk_bytes));
}

Residency::Residency(Device& device, std::unique_ptr<Arena> arena, uint64_t image_bytes,
                     uint64_t chunk_bytes)
    : device_(device),
      arena_(std::move(arena)),
      image_bytes_(image_bytes),
      chunk_bytes_(chunk_bytes),
      thread_([this] { CopyLoop(); }) {}

Residency::~Residency() {
  {
    std::unique_lock<std::mutex> lock(mu_);
    stop_ = true;
    WakeSource(lock);
  }
  work_.notify_all();
  thread_.join();
  if (absl::Status status = ReleaseRange(0, committed_); !status.ok()) {
    LogWarning("weights stay on the device: ", status.ToString());
  }
}

void Residency::SetSource(std::shared_ptr<WeightSource> source) {
  std::unique_lock<std::mutex> lock(mu_);
  const std::shared_ptr<WeightSource> old = std::exchange(source_, std::move(source));
  if (old == nullptr) return;
  lock.unlock();
  old->Wake();  // a wait for its bytes is cut short
  lock.lock();
  changed_.wait(lock, [&] { return taking_from_ != old.get(); });
  lock.unlock();
  // Copies that were launched may still be reading it.
  if (absl::Status status = SynchronizeCopies(); !status.ok()) {
    LogError("the copy stream failed: ", status.ToString());
  }
}

absl::Status Residency::SetTarget(uint64_t bytes) {
  std::unique_lock<std::mutex> lock(mu_);
  bytes = bytes >= image_bytes_ ? image_bytes_ : bytes / chunk_bytes_ * chunk_bytes_;
  if (bytes > launched_ && source_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("the weights cannot grow to ", bytes, " bytes without a master"));
  }
  if (Idle()) grew_from_ = launched_;
  target_ = bytes;
  error_ = absl::OkStatus();
  work_.notify_all();
  if (committed_ <= target_) return absl::OkStatus();
  // The copying thread cuts itself short: it looks at the target between pieces, and when it is
  // woken from waiting for one.
  WakeSource(lock);
  changed_.wait(lock, [this] { return Idle(); });
  return ReleaseDownTo(target_);
}

// Not under mu_, which what it waits with asks for.
void Residency::WakeSource(std::unique_lock<std::mutex>& lock) {
  const std::shared_ptr<WeightSource> source = source_;
  if (source == nullptr) return;
  lock.unlock();
  source->Wake();
  lock.lock();
}

absl::Status Residency::ReleaseDownTo(uint64_t bytes) {
  if (committed_ <= bytes) return absl::OkStatus();
  RETURN_IF_ERROR(ReleaseRange(bytes, committed_));
  resident_ = launched_ = committed_ = bytes;
  return absl::OkStatus();
}

absl::Status Residency::ReleaseRange(uint64_t begin, uint64_t end) {
  const uint64_t page = device_.page_bytes();
  if (end <= begin) return absl::OkStatus();
  return arena_->Release(begin, RoundUp(end, page) - begin);
}

// Where what is committed ends then: memory that cannot be given back is still charged.
uint64_t Residency::GiveBack(uint64_t begin, uint64_t end) {
  const absl::Status status = ReleaseRange(begin, end);
  if (status.ok()) return begin;
  LogError("weights stay on the device: ", status.ToString());
  return end;
}

uint64_t Residency::target_bytes() const {
  std::lock_guard<std::mutex> lock(mu_);
  return target_;
}
uint64_t Residency::resident_bytes() const {
  std::lock_guard<std::mutex> lock(mu_);
  return resident_;
}
uint64_t Residency::committed_bytes() const {
  std::lock_guard<std::mutex> lock(mu_);
  return committed_;
}
bool Residency::settled() const {
  std::lock_guard<std::mutex> lock(mu_);
  return Idle();
}
absl::Status Residency::error() const {
  std::lock_guard<std::mutex> lock(mu_);
  return error_;
}
void Residency::SetObserver(std::function<void()> observer) {
  std::lock_guard<std::mutex> lock(mu_);
  observer_ = std::move(observer);
}

absl::Status Residency::WaitFor(uint64_t bytes, StreamHandle stream) {
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    if (bytes <= resident_) return absl::OkStatus();
    for (const Span& span : on_their_way_) {
      if (bytes <= span.end) return device_.Wait(stream, *span.event);
    }
    if (!error_.ok()) return error_;
    if (bytes > target_) {
      return absl::FailedPreconditionError(
          absl::StrCat("byte ", bytes, " of the image is beyond the lease of ", target_));
    }
    if (interrupted_) return absl::CancelledError("interrupted while waiting for weights");
    changed_.wait(lock);
  }
}

void Residency::Interrupt() {
  std::lock_guard<std::mutex> lock(mu_);
  interrupted_ = true;
  changed_.notify_all();
}

void Residency::EndInterrupt() {
  std::lock_guard<std::mutex> lock(mu_);
  interrupted_ = false;
}

uint64_t Residency::ChunkEnd(uint64_t begin) const {
  return std::min(image_bytes_, begin + chunk_bytes_);
}

bool Residency::WantsChunk() const { return error_.ok() && launched_ < target_; }

bool Residency::Idle() const { return !busy_ && on_their_way_.empty() && !WantsChunk(); }

void Residency::CopyLoop() {
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    work_.wait(lock, [this] { return stop_ || WantsChunk() || !on_their_way_.empty(); });
    if (!on_their_way_.empty() &&
        (stop_ || !WantsChunk() || on_their_way_.size() >= kChunksOnTheirWay)) {
      FinishChunk(lock);
    } else if (stop_) {
      return;
    } else {
      LaunchChunk(lock);
    }
    changed_.notify_all();
    if (observer_ && !stop_) {
      lock.unlock();
      observer_();
      lock.lock();
    }
  }
}

void Residency::LaunchChunk(std::unique_lock<std::mutex>& lock) {
  const uint64_t begin = launched_;
  const uint64_t end = ChunkEnd(begin);
  const uint64_t page = device_.page_bytes();
  const bool has_room = committed_ >= end;  // it could not be given back
  const uint64_t all = committed_ = std::max(committed_, end);
  both_ways_ = begin - grew_from_ < (target_ - grew_from_) / kClearedMeanwhile;
  busy_ = true;
  lock.unlock();
  absl::Status status;
  if (!has_room) status = arena_->Commit(begin, RoundUp(end, page) - begin);
  const bool has_memory = status.ok();
  std::shared_ptr<Event> arrived;
  if (status.ok()) status = CopyChunk(begin, end);
  if (status.ok()) {
    auto event = RecordArrival();
    status = event.status();
    if (event.ok()) arrived = *std::move(event);
  }
  uint64_t left = all;
  if (!status.ok()) {
    SynchronizeCopies().IgnoreError();
    left = has_memory ? GiveBack(begin, all) : begin;
  }
  lock.lock();
  busy_ = false;
  if (status.ok()) {
    launched_ = end;
    on_their_way_.push_back({end, std::move(arrived)});
    return;
  }
  committed_ = left;
  // Cut short by a smaller target is no error.
  if (!absl::IsCancelled(status) || (!stop_ && end <= target_)) error_ = std::move(status);
}

void Residency::FinishChunk(std::unique_lock<std::mutex>& lock) {
  const Span span = on_their_way_.front();
  busy_ = true;
  lock.unlock();
  absl::Status status = span.event->Synchronize();
  lock.lock();
  busy_ = false;
  if (status.ok()) {
    resident_ = span.end;
    on_their_way_.pop_front();
    return;
  }
  // A copy that failed: nothing after the complete prefix is worth keeping.
  SynchronizeCopies().IgnoreError();
  on_their_way_.clear();
  committed_ = GiveBack(resident_, committed_);
  launched_ = resident_;
  error_ = std::move(status);
}

absl::Status Residency::CopyChunk(uint64_t begin, uint64_t end) {
  for (uint64_t at = begin; at < end;) {
    ASSIGN_OR_RETURN(const uint64_t copied, CopyPiece(at, std::min(kPieceBytes, end - at), end));
    at += copied;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Residency::CopyPiece(uint64_t offset, uint64_t most, uint64_t chunk_end) {
  std::unique_lock<std::mutex> lock(mu_);
  const std::shared_ptr<WeightSource> source = source_;
  if (stop_ || chunk_end > target_) return absl::CancelledError("the lease has shrunk");
  if (source == nullptr) {
    return absl::FailedPreconditionError("the master was dropped while the weights were growing");
  }
  const uint64_t target = target_;
  taking_from_ = source.get();
  lock.unlock();
  source->Expect(offset, target);
  absl::StatusOr<uint64_t> copied = CopyFrom(*source, offset, most, [&] {
    std::lock_guard<std::mutex> asking(mu_);
    return !stop_ && chunk_end <= target_ && source_ == source;
  });
  lock.lock();
  taking_from_ = nullptr;
  changed_.notify_all();
  if (absl::IsCancelled(copied.status()) && source_ != source) return uint64_t{0};
  return copied;
}

absl::StatusOr<uint64_t> Residency::CopyFrom(WeightSource& source, uint64_t offset, uint64_t most,
                                             const std::function<bool()>& wanted) {
  ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, source.Take(offset, most, wanted));
  const StreamHandle stream = StreamOfPiece();
  RETURN_IF_ERROR(device_.Upload(base() + offset, bytes.data(), bytes.size(), stream));
  if (source.lends()) {
    ASSIGN_OR_RETURN(std::shared_ptr<Event> copied, device_.Record(stream));
    source.Launched(std::move(copied));
  }
  return bytes.size();
}

StreamHandle Residency::StreamOfPiece() {
  turn_ = both_ways_ ? (turn_ + 1) % kPiecesOfTurn : 0;
  if (turn_ == 0) return device_.copy_stream();
  any_was_read_ = true;
  return device_.reading_stream();
}

absl::StatusOr<std::shared_ptr<Event>> Residency::RecordArrival() {
  if (std::exchange(any_was_read_, false)) {
    ASSIGN_OR_RETURN(const std::shared_ptr<Event> read, device_.Record(device_.reading_stream()));
    RETURN_IF_ERROR(device_.Wait(device_.copy_stream(), *read));
  }
  return device_.Record(device_.copy_stream());
}

absl::Status Residency::SynchronizeCopies() {
  const absl::Status read = device_.Synchronize(device_.reading_stream());
  RETURN_IF_ERROR(device_.Synchronize(device_.copy_stream()));
  return read;
}

}  // namespace switchyard::worker
