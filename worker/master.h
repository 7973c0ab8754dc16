#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/available_memory.h"
#include "common/clock.h"
#include "common/executor.h"
#include "switchyard/v1/worker.pb.h"
#include "worker/descriptors.h"
#include "worker/device/device.h"
#include "worker/device/weight_source.h"
#include "worker/host_room.h"
#include "worker/io/checkpoint.h"
#include "worker/master_map.h"
#include "worker/model/image.h"
#include "worker/model/image_blocks.h"
#include "worker/model/image_cache.h"
#include "worker/outbox.h"

namespace switchyard::worker {

// The worker's side of the master: maps, registers, fills and seals it, on a thread of its own, so
// that serving goes on. While it is being filled, the engine may copy the prefix that is there. Of
// a model that is streamed, the same for the ring that stands in for a master.
class Master {
 public:
  struct Parts {
    const ImageLayout& image;
    const Checkpoint& checkpoint;
    std::string cache_dir;  // empty: no cache
    uint64_t cache_bytes = kImageCacheBytes;
    Device& device;
    Descriptors& descriptors;
    Outbox& outbox;
    // Tells the engine; null: dropped. When it returns, the old one is not read any more.
    std::function<void(std::shared_ptr<WeightSource>)> set_source;
    HostRoom::Has host_has = [](uint64_t bytes) { return CheckHostHas(bytes); };
    uint64_t host_slice = kHostSlice;
  };
  explicit Master(Parts parts) : parts_(std::move(parts)), thread_(1, "master") {}
  ~Master();

  // Both return at once and answer with MasterStatus.
  void Use(const v1::UseMaster& command);
  void Drop(const v1::DropMaster& command);
  // Cuts a filling short and waits for the thread; the mapping stays until destruction.
  void Stop();

 private:
  void RunUse(const v1::UseMaster& command);
  void RunDrop(uint64_t master_id);
  // What is mapped read-only, sealed and registered in the end, and its checksum.
  absl::StatusOr<uint64_t> Adopt(const v1::UseMaster& command, bool& worth_caching);
  // What is streamed needs no master.
  absl::Status AdoptRing(const v1::UseMaster& command, int fd);
  // Lets the engine copy what is `ready` of it, in place of the one before.
  void Attach(MasterMap map, uint64_t master_id, uint64_t ready);
  void Register(const MasterMap& map);
  void Keep(MasterMap map, uint64_t master_id);
  // These return the checksum.
  absl::StatusOr<uint64_t> Fill(uint64_t master_id, HostRoom& room, bool& worth_caching);
  absl::StatusOr<uint64_t> ReadCache(uint64_t master_id, HostRoom& room);
  absl::StatusOr<uint64_t> ReadCheckpoint(uint64_t master_id, HostRoom& room);
  // What the image can be read from without holding it; made first where there is none.
  absl::StatusOr<std::shared_ptr<const ImageBlocks>> OpenBlocks(
      uint64_t master_id, const std::function<bool()>& wanted);
  absl::Status BuildCache(uint64_t master_id, const std::function<bool()>& wanted);
  // From the copying thread: a block proved damaged.
  absl::StatusOr<std::shared_ptr<const ImageBlocks>> Reopen(uint64_t master_id,
                                                            const std::function<bool()>& wanted);
  void GiveUp(uint64_t master_id, const absl::Status& why);
  void LogQuantized(const FillReport& report) const;
  void TellFilling(uint64_t master_id, uint64_t bytes_done);
  // Tells everyone of the prefix that is there; false: it is not wanted any more.
  bool Progress(uint64_t master_id, HostRoom& room, uint64_t bytes_done);
  void Unmap();
  bool Cancelled(uint64_t master_id) const;
  void Tell(uint64_t master_id, v1::MasterStatus::State state, uint64_t bytes_done,
            uint64_t checksum = 0, const absl::Status& error = absl::OkStatus());

  Parts parts_;
  // Of the thread.
  uint64_t current_id_ = 0;
  MasterMap map_;
  std::shared_ptr<MasterSource> source_;
  const SteadyClock clock_;
  std::atomic<Nanos> told_ = 0;  // when progress was told last

  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::set<uint64_t> dropped_;  // until their RunDrop; guarded by mutex_
  Executor thread_;
};

}  // namespace switchyard::worker
