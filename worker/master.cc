#include "worker/master.h"

#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/utf8.h"

namespace switchyard::worker {
namespace {

// A descriptor is sent before the command that names it, so that it is there or about to be.
constexpr Nanos kDescriptorTimeout = 10 * kSecond;
constexpr Nanos kProgressInterval = 50 * kMillisecond;

}  // namespace

Master::~Master() {
  Stop();
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
  if (!checksum.ok()) {
    // RunDrop follows, and answers.
    if (Cancelled(command.master_id())) return;
    LogWarning("master ", command.master_id(), ": ", checksum.status().ToString());
    Tell(command.master_id(), v1::MasterStatus::FAILED, 0, 0, checksum.status());
    return;
  }
  Tell(command.master_id(), v1::MasterStatus::COMPLETE, parts_.image.bytes, *checksum);
  // After the answer: nobody waits for it, and whoever wants the memory back does not have to.
  if (!worth_caching) return;
  absl::Status written =
      WriteImageCache(parts_.cache_dir, parts_.image, map_.bytes(), kImageCacheBytes,
                      [&](uint64_t) { return !Cancelled(command.master_id()); });
  if (written.ok() || absl::IsCancelled(written)) return;
  LogWarning("image cache: ", written.ToString());
}

absl::StatusOr<uint64_t> Master::Adopt(const v1::UseMaster& command, bool& worth_caching) {
  ASSIGN_OR_RETURN(UniqueFd fd, parts_.descriptors.Take(command.master_id(), kDescriptorTimeout));
  uint64_t checksum = 0;  // of a complete one, whoever filled it has told it
  if (!command.complete()) {
    ASSIGN_OR_RETURN(checksum, Fill(fd.get(), command.master_id(), worth_caching));
  }
  ASSIGN_OR_RETURN(MasterMap map, MasterMap::Readable(fd.get(), parts_.image.bytes));
  RETURN_IF_ERROR(parts_.device.RegisterHost(map.bytes().data(), map.bytes().size()));
  parts_.set_master(map.bytes().data());
  Unmap();
  map_ = std::move(map);
  current_id_ = command.master_id();
  return checksum;
}

// The writable mapping is gone before the seal, which others' mappings would survive.
absl::StatusOr<uint64_t> Master::Fill(int fd, uint64_t master_id, bool& worth_caching) {
  uint64_t checksum = 0;
  {
    ASSIGN_OR_RETURN(MasterMap map, MasterMap::Writable(fd, parts_.image.bytes));
    ASSIGN_OR_RETURN(checksum, FillMapped(map.bytes(), master_id, worth_caching));
  }
  RETURN_IF_ERROR(SealMaster(fd));
  return checksum;
}

absl::StatusOr<uint64_t> Master::FillMapped(std::span<std::byte> image, uint64_t master_id,
                                            bool& worth_caching) {
  const SteadyClock clock;
  Nanos told = 0;
  auto progress = [&](uint64_t bytes_done) {
    if (const Nanos now = clock.Now(); now - told >= kProgressInterval) {
      told = now;
      Tell(master_id, v1::MasterStatus::FILLING, bytes_done);
    }
    return !Cancelled(master_id);
  };
  const bool may_cache = parts_.image.took_work && !parts_.cache_dir.empty();
  if (may_cache) {
    auto cached = ReadImageCache(parts_.cache_dir, parts_.image, image, progress);
    if (cached.ok() || Cancelled(master_id)) return cached;
    if (!absl::IsNotFound(cached.status())) {
      LogWarning("image cache: ", cached.status().ToString());
    }
  }
  worth_caching = may_cache;
  FillReport report;
  RETURN_IF_ERROR(FillImage(parts_.image, parts_.checkpoint, image, progress, &report));
  if (!report.worst_name.empty()) {
    LogInfo("quantized: relative error of the weights ",
            absl::StrFormat("%.4f", report.error.Relative()), ", at worst ",
            absl::StrFormat("%.4f", report.worst), " in ", report.worst_name);
  }
  return ImageChecksum(image.first(parts_.image.bytes));
}

void Master::RunDrop(uint64_t master_id) {
  {
    std::lock_guard lock(mutex_);
    dropped_.erase(master_id);
  }
  if (current_id_ == master_id) {
    parts_.set_master(nullptr);
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
  status.set_error(ValidUtf8(std::string(error.message())));
  parts_.outbox.Send(std::move(message));
}

}  // namespace switchyard::worker
