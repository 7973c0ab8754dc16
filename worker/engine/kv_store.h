#pragma once

// The device's half of the KV cache: the arena's granules, the block tables on the device, and the
// copies that moving, pausing and resuming need. All work goes to the compute stream, so that it
// runs after the steps launched before it and before those launched after it.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/engine/kv_cache.h"

namespace switchyard::worker {

class KvStore final : public KvMemory {
 public:
  // `tables`: device memory of TableBytes.
  static absl::StatusOr<std::unique_ptr<KvStore>> Create(Device& device, const KvLayout& layout,
                                                         int32_t slots, int32_t* tables);
  static uint64_t TableBytes(const KvLayout& layout, int32_t slots);
  KvStore(const KvStore&) = delete;
  KvStore& operator=(const KvStore&) = delete;

  absl::Status Commit(int32_t group, int32_t granule) override;
  absl::Status Release(int32_t group, int32_t granule) override;
  absl::Status Move(int32_t group, int32_t from_block, int32_t to_block) override;

  const std::vector<kernels::KvView>& views() const { return views_; }  // [layers]

  // Sends changed table entries to the device, by way of `staging` (host, TableBytes), which stays
  // untouched until the stream has passed.
  absl::Status UploadTables(KvCache& cache, int32_t* staging);

  // Bytes of the blocks in `spans`, and copies between a slot's blocks and that many bytes on the
  // host. Finished when the compute stream has passed.
  uint64_t PackedBytes(const BlockSpans& spans) const;
  absl::Status Save(const KvCache& cache, int32_t slot, std::byte* host);
  absl::Status Load(const KvCache& cache, int32_t slot, const std::byte* host);

 private:
  // Calls with every run of blocks that lie next to each other, in the slot's order.
  template <typename Visit>
  absl::Status ForEachRun(const KvCache& cache, int32_t slot, Visit visit);

  KvStore(Device& device, const KvLayout& layout, int32_t slots, int32_t* tables,
          std::unique_ptr<Arena> arena);
  std::byte* BlockAddress(int32_t group, int32_t block) const;
  size_t TableOffset(int32_t group, int32_t slot) const;  // in entries

  Device& device_;
  const KvLayout& layout_;
  int32_t* const tables_;
  const std::unique_ptr<Arena> arena_;
  std::vector<size_t> table_offset_;  // of each group, in entries
  std::vector<kernels::KvView> views_;
};

}  // namespace switchyard::worker
