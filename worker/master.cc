#include "worker/master.h"

#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/master_seals.h"
#include "common/status_macros.h"
#include "common/utf8.h"
#include "worker/model/image_window.h"
#include "worker/model/streamed_source.h"

namespace switchyard::worker {
namespace {

// A descriptor is sent before the command that names it, so that it is there or about to be.
constexpr Nanos kDescriptorTimeout = 10 * kSecond;
constexpr Nanos kProgressInterval = 50 * kMillisecond;
constexpr uint64_t kLeastRing = 2 * kChecksumBlock;

}  // namespace

Master::~Master() {
  Stop();
  if (map_) parts_.set_source(nullptr);  // what reads ahead into it ends
  Unmap();
}

void Master::Stop() {
  stopping_ = true;
  thread_.Stop();
}

void Master::Use(const v1::UseMaster& command) {
  thread_.Post([this, command] { RunUse(command); });
}

void Master::Drop(const v1::DropMaster& command) {
  {
    std::lock_guard lock(mutex_);
    dropped_.insert(command.master_id());  // ends a filling under way
  }
  thread_.Post([this, id = command.master_id()] { RunDrop(id); });
}

bool Master::Cancelled(uint64_t master_id) const {
  std::lock_guard lock(mutex_);
  return stopping_ || dropped_.contains(master_id);
}

void Master::RunUse(const v1::UseMaster& command) {
  bool worth_caching = false;
  absl::StatusOr<uint64_t> checksum = Adopt(command, worth_caching);
  if (!checksum.ok()) return GiveUp(command.master_id(), checksum.status());
  Tell(command.master_id(), v1::MasterStatus::COMPLETE, parts_.image.bytes, *checksum);
  // After the answer: nobody waits for it, and whoever wants the memory back does not have to.
  if (!worth_caching) return;
  absl::Status written =
      WriteImageCache(parts_.cache_dir, parts_.image, map_.bytes(), parts_.cache_bytes,
                      [&](uint64_t) { return !Cancelled(command.master_id()); });
  if (written.ok() || absl::IsCancelled(written)) return;
  LogWarning("image cache: ", written.ToString());
}

// Whoever copies from it is told why it ends, before the mapping goes.
void Master::GiveUp(uint64_t master_id, const absl::Status& why) {
  const bool cancelled = Cancelled(master_id);
  if (current_id_ == master_id) {
    parts_.set_source(cancelled ? nullptr : std::make_shared<MasterSource>(why));
    Unmap();
  }
  if (cancelled) return;  // RunDrop follows, and answers
  LogWarning("master ", master_id, ": ", why.ToString());
  Tell(master_id, v1::MasterStatus::FAILED, 0, 0, why);
}

absl::StatusOr<uint64_t> Master::Adopt(const v1::UseMaster& command, bool& worth_caching) {
  ASSIGN_OR_RETURN(UniqueFd fd, parts_.descriptors.Take(command.master_id(), kDescriptorTimeout));
  const uint64_t bytes = parts_.image.bytes;
  if (command.streamed()) {
    RETURN_IF_ERROR(AdoptRing(command, fd.get()));
    return uint64_t{0};
  }
  if (command.complete()) {
    ASSIGN_OR_RETURN(MasterMap map, MasterMap::Readable(fd.get(), bytes));
    Attach(std::move(map), command.master_id(), bytes);
    return uint64_t{0};  // whoever filled it has told the checksum
  }
  HostRoom room(fd.get(), command.bytes(), parts_.host_has, parts_.host_slice);
  RETURN_IF_ERROR(room.Look(0));
  ASSIGN_OR_RETURN(MasterMap map, MasterMap::Writable(fd.get(), bytes));
  Attach(std::move(map), command.master_id(), 0);
  absl::StatusOr<uint64_t> checksum = Fill(command.master_id(), room, worth_caching);
  RETURN_IF_ERROR(room.status());  // what was cut short for that says no more than that it was
  RETURN_IF_ERROR(checksum.status());
  // The same mapping, as copies from it may be on their way, and it is registered.
  RETURN_IF_ERROR(SealMaster(fd.get()));
  RETURN_IF_ERROR(map_.MakeReadOnly());
  return checksum;
}

void Master::Attach(MasterMap map, uint64_t master_id, uint64_t ready) {
  Register(map);
  source_ = std::make_shared<MasterSource>(map.bytes(), ready);
  parts_.set_source(source_);
  Keep(std::move(map), master_id);
}

void Master::Register(const MasterMap& map) {
  absl::Status status = parts_.device.RegisterHost(map.bytes().data(), map.bytes().size());
  if (!status.ok()) LogWarning("registering the master: ", status.ToString());
}

// In place of the one before, which nobody reads any more.
void Master::Keep(MasterMap map, uint64_t master_id) {
  Unmap();
  map_ = std::move(map);
  current_id_ = master_id;
}

absl::StatusOr<uint64_t> Master::Fill(uint64_t master_id, HostRoom& room, bool& worth_caching) {
  const bool may_cache = parts_.image.took_work && !parts_.cache_dir.empty();
  if (may_cache) {
    auto cached = ReadCache(master_id, room);
    if (cached.ok() || Cancelled(master_id) || !room.status().ok()) return cached;
    if (!absl::IsNotFound(cached.status())) {
      LogWarning("image cache: ", cached.status().ToString());
    }
    // What has been copied of it was right. The rest waits until it has been filled again.
    source_ = std::make_shared<MasterSource>(map_.bytes(), 0);
    parts_.set_source(source_);
  }
  worth_caching = may_cache;
  return ReadCheckpoint(master_id, room);
}

absl::StatusOr<uint64_t> Master::ReadCache(uint64_t master_id, HostRoom& room) {
  return ReadImageCache(parts_.cache_dir, parts_.image, map_.bytes(),
                        [&](uint64_t bytes_done) { return Progress(master_id, room, bytes_done); });
}

absl::StatusOr<uint64_t> Master::ReadCheckpoint(uint64_t master_id, HostRoom& room) {
  FillReport report;
  RETURN_IF_ERROR(FillImage(
      parts_.image, parts_.checkpoint, map_.bytes(),
      [&](uint64_t bytes_done) { return Progress(master_id, room, bytes_done); }, &report));
  LogQuantized(report);
  return ImageChecksum(map_.bytes().first(parts_.image.bytes));
}

bool Master::Progress(uint64_t master_id, HostRoom& room, uint64_t bytes_done) {
  source_->SetReady(bytes_done);
  TellFilling(master_id, bytes_done);
  return !Cancelled(master_id) && room.Look(bytes_done).ok();
}

// ---- Streamed

absl::Status Master::AdoptRing(const v1::UseMaster& command, int fd) {
  const uint64_t id = command.master_id();
  if (command.bytes() < kLeastRing) {
    return absl::InvalidArgumentError(
        absl::StrCat("a ring of ", command.bytes(), " bytes is too small"));
  }
  RETURN_IF_ERROR(parts_.host_has(command.bytes()));
  ASSIGN_OR_RETURN(MasterMap ring, MasterMap::Writable(fd, command.bytes()));
  ASSIGN_OR_RETURN(auto blocks, OpenBlocks(id, [] { return true; }));
  Register(ring);
  parts_.set_source(std::make_shared<StreamedSource>(
      std::move(blocks), ring.bytes(),
      [this, id](const std::function<bool()>& wanted) { return Reopen(id, wanted); }));
  source_ = nullptr;
  Keep(std::move(ring), id);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const ImageBlocks>> Master::OpenBlocks(
    uint64_t master_id, const std::function<bool()>& wanted) {
  if (!parts_.image.took_work) {
    return std::shared_ptr<const ImageBlocks>(CheckpointBlocks(parts_.image, parts_.checkpoint));
  }
  if (parts_.cache_dir.empty()) {
    return absl::FailedPreconditionError(
        "the image takes work to make and does not fit the host's memory, and there is no image "
        "cache to make it in");
  }
  auto cached = OpenImageCache(parts_.cache_dir, parts_.image);
  if (!cached.ok()) {
    if (!absl::IsNotFound(cached.status())) {
      LogWarning("image cache: ", cached.status().ToString());
    }
    RETURN_IF_ERROR(BuildCache(master_id, wanted));
    cached = OpenImageCache(parts_.cache_dir, parts_.image);
  }
  RETURN_IF_ERROR(cached.status());
  return std::shared_ptr<const ImageBlocks>(*std::move(cached));
}

absl::Status Master::BuildCache(uint64_t master_id, const std::function<bool()>& wanted) {
  FillReport report;
  RETURN_IF_ERROR(BuildImageCache(
      parts_.cache_dir, parts_.image, parts_.checkpoint, parts_.cache_bytes,
      [&](uint64_t bytes_done) {
        TellFilling(master_id, bytes_done);
        return !Cancelled(master_id) && wanted();
      },
      &report));
  LogQuantized(report);
  return absl::OkStatus();
}

// A growth waits meanwhile; the supervisor is told why.
absl::StatusOr<std::shared_ptr<const ImageBlocks>> Master::Reopen(
    uint64_t master_id, const std::function<bool()>& wanted) {
  if (parts_.image.took_work) RemoveFromImageCache(parts_.cache_dir, parts_.image);
  auto blocks = OpenBlocks(master_id, wanted);
  if (Cancelled(master_id)) return blocks;
  if (blocks.ok() || absl::IsCancelled(blocks.status())) {  // the next growth tries again
    Tell(master_id, v1::MasterStatus::COMPLETE, parts_.image.bytes);
  } else {
    thread_.Post([this, master_id, why = blocks.status()] { GiveUp(master_id, why); });
  }
  return blocks;
}

void Master::LogQuantized(const FillReport& report) const {
  if (report.worst_name.empty()) return;
  LogInfo("quantized: relative error of the weights ",
          absl::StrFormat("%.4f", report.error.Relative()), ", at worst ",
          absl::StrFormat("%.4f", report.worst), " in ", report.worst_name);
}

// ----

void Master::TellFilling(uint64_t master_id, uint64_t bytes_done) {
  const Nanos now = clock_.Now();
  // That all of it is there is told in any case: what follows says nothing until it ends.
  if (now - told_ < kProgressInterval && bytes_done < parts_.image.bytes) return;
  told_ = now;
  Tell(master_id, v1::MasterStatus::FILLING, bytes_done);
}

void Master::RunDrop(uint64_t master_id) {
  {
    std::lock_guard lock(mutex_);
    dropped_.erase(master_id);
  }
  if (current_id_ == master_id) {
    parts_.set_source(nullptr);
    Unmap();
  }
  Tell(master_id, v1::MasterStatus::DROPPED, 0);
}

void Master::Unmap() {
  if (!map_) return;
  absl::Status unregistered = parts_.device.UnregisterHost(map_.bytes().data());
  if (!unregistered.ok()) LogError("unregistering the master: ", unregistered.ToString());
  MasterMap gone = std::move(map_);
  current_id_ = 0;
}

void Master::Tell(uint64_t master_id, v1::MasterStatus::State state, uint64_t bytes_done,
                  uint64_t checksum, const absl::Status& error) {
  v1::FromWorker message;
  v1::MasterStatus& status = *message.mutable_master();
  status.set_master_id(master_id);
  status.set_state(state);
  status.set_bytes_done(bytes_done);
  status.set_bytes_total(parts_.image.bytes);
  status.set_checksum(checksum);
  status.set_code(static_cast<int32_t>(error.code()));
  status.set_host_short(IsHostShort(error));
  status.set_error(ValidUtf8(std::string(error.message())));
  parts_.outbox.Send(std::move(message));
}

}  // namespace switchyard::worker
