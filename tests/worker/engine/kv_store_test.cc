#include "worker/engine/kv_store.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/worker/device/fault_device.h"
#include "worker/device/host_buffer.h"

namespace switchyard::worker {
namespace {

constexpr int32_t kContext = 4096;

class KvStoreTest : public testing::Test {
 protected:
  KvStoreTest() : device_(faults_) {
    Architecture arch;
    arch.kv_heads = 2;
    arch.head_dim = 64;
    arch.layers.resize(2);
    layout_ = PlanKv(arch, kernels::DType::kF32, kContext, 2, 256, kCpuPageBytes);
    tables_ = *device_.Allocate(KvStore::TableBytes(layout_, 2));
    store_ = *KvStore::Create(device_, layout_, 2, static_cast<int32_t*>(tables_->data()));
    cache_ = std::make_unique<KvCache>(layout_, 2, *store_);
    cache_->SetLimit(layout_.useful_bytes);
  }

  Faults faults_;
  FaultDevice device_;
  KvLayout layout_;
  std::unique_ptr<Buffer> tables_;
  std::unique_ptr<KvStore> store_;
  std::unique_ptr<KvCache> cache_;
};

// The step behind it, whose weights are on their way, would come after the last of these.
TEST_F(KvStoreTest, WhatComesBackDoesNotComeBehindWeights) {
  ASSERT_TRUE(cache_->Extend(0, 0, kContext).ok());
  const BlockSpans spans = cache_->Spans(0);
  const uint64_t bytes = store_->PackedBytes(spans);
  ASSERT_GT(bytes, 4 * kBesideWeightsBytes);
  auto from = *HostBuffer::Create(device_, bytes);
  for (uint64_t i = 0; i < bytes; ++i) from->data()[i] = static_cast<std::byte>(i * 31 >> 7);
  ASSERT_TRUE(store_->Load(*cache_, 0, from->data()).ok());
  EXPECT_EQ(faults_.uploaded(), bytes);
  EXPECT_LE(faults_.largest_upload(), kBesideWeightsBytes);
  auto back = *HostBuffer::Create(device_, bytes);
  ASSERT_TRUE(store_->Save(*cache_, 0, back->data()).ok());
  EXPECT_EQ(std::memcmp(from->data(), back->data(), bytes), 0);
}

}  // namespace
}  // namespace switchyard::worker
