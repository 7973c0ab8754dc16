#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "worker/engine/batcher.h"

namespace switchyard::worker {

inline constexpr int32_t kChunk = 64;

class BatcherTest : public testing::Test {
 protected:
  BatcherTest() {
    Architecture arch;
    arch.kv_heads = 2;
    arch.head_dim = 16;
    arch.layers.push_back({0, 0, false});
    layout_ = PlanKv(arch, kernels::DType::kF32, 1024, 4, kChunk, 4096);
    SetBlocks(1000);
  }

  // Granules of one block each, so that the arithmetic of a test is plain.
  void SetBlocks(int32_t blocks) {
    room_.groups = {{0, 100000, 1, 1}};
    room_.limit = blocks;
  }

  static BatchItem Item(uint64_t arrival, int32_t computed, int32_t length, int32_t held = 0) {
    BatchItem item;
    item.arrival = arrival;
    item.computed = computed;
    item.length = length;
    item.most_length = length + 500;
    item.held = {held};
    return item;
  }

  BatchPlan Plan() {
    room_.groups[0].used = 0;
    for (const BatchItem& item : running_) room_.Add(item.held);
    BatchInput input;
    input.running = running_;
    input.paused = paused_;
    input.waiting = waiting_;
    input.room = room_;
    input.admission_limit = room_.limit;
    input.resume = resume_;
    input.admit = admit_;
    input.free_slots = slots_;
    input.step_rows = kChunk + 4;
    input.prefill_chunk = kChunk;
    input.layout = &layout_;
    return PlanBatch(input);
  }

  KvLayout layout_;
  KvRoom room_;
  std::vector<BatchItem> running_, paused_, waiting_;
  int32_t slots_ = 4;
  bool resume_ = true;
  bool admit_ = true;
};

}  // namespace switchyard::worker
