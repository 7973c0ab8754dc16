#include "worker/engine/kv_store.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "common/status_macros.h"
#include "worker/device/host_buffer.h"

namespace switchyard::worker {

absl::StatusOr<std::unique_ptr<KvStore>> KvStore::Create(Device& device, const KvLayout& layout,
                                                         int32_t slots, int32_t* tables) {
  ASSIGN_OR_RETURN(std::unique_ptr<Arena> arena, device.Reserve(layout.reserved_bytes));
  return std::unique_ptr<KvStore>(new KvStore(device, layout, slots, tables, std::move(arena)));
}

uint64_t KvStore::TableBytes(const KvLayout& layout, int32_t slots) {
  uint64_t entries = 0;
  for (const KvGroup& group : layout.groups) {
    entries += static_cast<uint64_t>(slots) * group.table_stride;
  }
  return entries * sizeof(int32_t);
}

KvStore::KvStore(Device& device, const KvLayout& layout, int32_t slots, int32_t* tables,
                 std::unique_ptr<Arena> arena)
    : device_(device), layout_(layout), tables_(tables), arena_(std::move(arena)) {
  size_t entries = 0;
  for (const KvGroup& group : layout.groups) {
    table_offset_.push_back(entries);
    entries += static_cast<size_t>(slots) * group.table_stride;
  }
  std::vector<uint64_t> layers_before(layout.groups.size(), 0);
  for (const int32_t index : layout.group_of_layer) {
    const KvGroup& group = layout.groups[index];
    kernels::KvView view;
    view.base = arena_->base() + group.region_offset;
    view.table = tables_ + table_offset_[index];
    view.table_stride = group.table_stride;
    view.block_tokens = kBlockTokens;
    view.block_bytes = static_cast<int64_t>(group.block_bytes);
    view.key_offset = static_cast<int64_t>(layers_before[index]++ * layout.layer_bytes);
    view.value_offset = view.key_offset + static_cast<int64_t>(layout.layer_bytes / 2);
    view.dtype = layout.dtype;
    views_.push_back(view);
  }
}

absl::Status KvStore::Commit(int32_t group, int32_t granule) {
  const KvGroup& at = layout_.groups[group];
  return arena_->Commit(at.region_offset + granule * at.granule_bytes, at.granule_bytes);
}

absl::Status KvStore::Release(int32_t group, int32_t granule) {
  const KvGroup& at = layout_.groups[group];
  // One touch of an unmapped address ruins a GPU's context: steps and moves under way come first.
  RETURN_IF_ERROR(device_.Synchronize(device_.compute_stream()));
  return arena_->Release(at.region_offset + granule * at.granule_bytes, at.granule_bytes);
}

absl::Status KvStore::Move(int32_t group, int32_t from_block, int32_t to_block) {
  return device_.CopyOnDevice(BlockAddress(group, to_block), BlockAddress(group, from_block),
                              layout_.groups[group].block_bytes, device_.compute_stream());
}

std::byte* KvStore::BlockAddress(int32_t group, int32_t block) const {
  const KvGroup& at = layout_.groups[group];
  return arena_->base() + at.region_offset + block * at.block_bytes;
}

size_t KvStore::TableOffset(int32_t group, int32_t slot) const {
  return table_offset_[group] + static_cast<size_t>(slot) * layout_.groups[group].table_stride;
}

absl::Status KvStore::UploadTables(KvCache& cache, int32_t* staging) {
  absl::Status status;
  cache.TakeChanges([&](int32_t group, int32_t slot, BlockSpan entries) {
    if (!status.ok()) return;
    const size_t offset = TableOffset(group, slot) + entries.begin;
    const uint64_t bytes = entries.count() * sizeof(int32_t);
    std::memcpy(staging + offset, cache.Table(group, slot) + entries.begin, bytes);
    status = device_.Upload(tables_ + offset, staging + offset, bytes, device_.compute_stream());
  });
  return status;
}

uint64_t KvStore::PackedBytes(const BlockSpans& spans) const {
  uint64_t bytes = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    bytes += spans[i].count() * layout_.groups[i].block_bytes;
  }
  return bytes;
}

template <typename Visit>
absl::Status KvStore::ForEachRun(const KvCache& cache, int32_t slot, Visit visit) {
  const BlockSpans spans = cache.Spans(slot);
  uint64_t offset = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    const auto group = static_cast<int32_t>(i);
    const int32_t* table = cache.Table(group, slot);
    for (int32_t begin = spans[i].begin; begin < spans[i].end;) {
      int32_t end = begin + 1;
      while (end < spans[i].end && table[end] == table[end - 1] + 1) ++end;
      const uint64_t bytes = (end - begin) * layout_.groups[i].block_bytes;
      RETURN_IF_ERROR(visit(BlockAddress(group, table[begin]), offset, bytes));
      offset += bytes;
      begin = end;
    }
  }
  return absl::OkStatus();
}

absl::Status KvStore::Save(const KvCache& cache, int32_t slot, std::byte* host) {
  return ForEachRun(cache, slot, [&](const std::byte* block, uint64_t offset, uint64_t bytes) {
    return device_.Download(host + offset, block, bytes, device_.compute_stream());
  });
}

absl::Status KvStore::Load(const KvCache& cache, int32_t slot, const std::byte* host) {
  return ForEachRun(cache, slot, [&](std::byte* block, uint64_t offset, uint64_t bytes) {
    return UploadBesideWeights(device_, block, host + offset, bytes, device_.compute_stream());
  });
}

}  // namespace switchyard::worker
