// What the lease keeper asks for before it takes memory away, at moments that a device which works
// by itself would pass over.

#include "worker/engine/lease_keeper.h"

#include <gtest/gtest.h>

#include "tests/worker/device/fault_device.h"
#include "tests/worker/engine/fake_model.h"

namespace switchyard::worker {
namespace {

class NoMemory final : public KvMemory {
 public:
  absl::Status Commit(int32_t, int32_t) override { return absl::OkStatus(); }
  absl::Status Release(int32_t, int32_t) override { return absl::OkStatus(); }
  absl::Status Move(int32_t, int32_t, int32_t) override { return absl::OkStatus(); }
};

// A step that was launched may be waiting for a chunk which the growth has not committed yet, but
// will have committed when it is cut short.
TEST(LeaseKeeper, CuttingAGrowthShortIsAShrink) {
  const FakeModel model = MakeFakeModel({0, 0, 0, 0});
  const KvLayout layout = PlanKv(model.arch, kernels::DType::kF32, 64, 1, 32, kCpuPageBytes);
  const uint64_t image = model.image.bytes;
  Faults faults;
  FaultDevice device(faults);
  NoMemory memory;
  KvCache cache(layout, 1, memory);
  auto residency = *Residency::Create(device, image, model.image.chunk_bytes);
  residency->SetSource(std::make_shared<MasterSource>(std::span(model.master)));
  LeaseKeeper lease(image, layout, *residency, cache);

  faults.HoldUploadsAfter(0);
  lease.SetTarget({.epoch = 1, .weight_bytes = image, .kv_bytes = layout.useful_bytes});
  EXPECT_FALSE(lease.WouldShrink(false));
  lease.Work(false);
  const uint64_t less = image - model.image.chunk_bytes;
  ASSERT_LT(residency->committed_bytes(), less);
  lease.SetTarget({.epoch = 2, .weight_bytes = less, .kv_bytes = layout.useful_bytes});
  EXPECT_TRUE(lease.WouldShrink(false));
  EXPECT_FALSE(lease.WouldShrink(true));  // those who run finish first
  faults.LetUploadsPass();
}

}  // namespace
}  // namespace switchyard::worker
