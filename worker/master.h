#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/executor.h"
#include "switchyard/v1/worker.pb.h"
#include "worker/descriptors.h"
#include "worker/device/device.h"
#include "worker/io/checkpoint.h"
#include "worker/master_map.h"
#include "worker/model/image.h"
#include "worker/outbox.h"

namespace switchyard::worker {

// The worker's side of the master: fills, seals, checks, registers and maps it, on a thread of its
// own, so that serving goes on.
class Master {
 public:
  struct Parts {
    const ImageLayout& image;
    const Checkpoint& checkpoint;
    std::string cache_dir;  // empty: no cache
    Device& device;
    Descriptors& descriptors;
    Outbox& outbox;
    // Tells the engine; null: dropped. When it returns, the old master is not read any more.
    std::function<void(const std::byte*)> set_master;
  };
  explicit Master(Parts parts) : parts_(std::move(parts)), thread_(1) {}
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
  // These return the checksum.
  absl::StatusOr<uint64_t> Fill(int fd, uint64_t master_id, bool& worth_caching);
  absl::StatusOr<uint64_t> FillMapped(std::span<std::byte> image, uint64_t master_id,
                                      bool& worth_caching);
  void Unmap();
  bool Cancelled(uint64_t master_id) const;
  void Tell(uint64_t master_id, v1::MasterStatus::State state, uint64_t bytes_done,
            uint64_t checksum = 0, const absl::Status& error = absl::OkStatus());

  Parts parts_;
  // Of the thread.
  uint64_t current_id_ = 0;
  MasterMap map_;

  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::set<uint64_t> dropped_;  // until their RunDrop; guarded by mutex_
  Executor thread_;
};

}  // namespace switchyard::worker
