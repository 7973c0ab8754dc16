#include "worker/engine/step_buffers.h"

#include <gtest/gtest.h>

#include "tests/worker/device/fault_device.h"

namespace switchyard::worker {
namespace {

// With the longest prefill_chunk that a model may ask for.
constexpr StepCapacity kLargest{65536 + 8, 8};

class StepBuffersTest : public testing::Test {
 protected:
  StepBuffersTest() : device_(faults_) {
    memory_ = *device_.Allocate(StepBuffers::DeviceBytes(kLargest));
    buffers_ = *StepBuffers::Create(device_, kLargest, static_cast<std::byte*>(memory_->data()), 0);
  }

  // Fills the step's inputs in, uploads them, and looks at what the device has.
  void Pass(StepCapacity step, int32_t logit_rows) {
    buffers_->Begin(step);
    const StepInputs& host = buffers_->host_inputs();
    for (int32_t row = 0; row < step.rows; ++row) host.slot[row] = host.position[row] = row;
    for (int32_t i = 0; i < step.sequences; ++i) {
      host.sequence_slot[i] = host.sequence_length[i] = host.sequence_row[i] = 3 * i;
    }
    host.sequence_row[step.sequences] = step.rows;
    for (int32_t i = 0; i < logit_rows; ++i) {
      host.logit_row[i] = 5 * i;
      host.sampling[i].position = 7 * i;
    }
    ASSERT_TRUE(buffers_->Upload(logit_rows).ok());
    const StepInputs& device = buffers_->inputs();
    for (int32_t row = 0; row < step.rows; ++row) {
      ASSERT_EQ(device.slot[row], row);
      ASSERT_EQ(device.position[row], row);
    }
    for (int32_t i = 0; i < step.sequences; ++i) {
      ASSERT_EQ(device.sequence_slot[i], 3 * i);
      ASSERT_EQ(device.sequence_length[i], 3 * i);
      ASSERT_EQ(device.sequence_row[i], 3 * i);
    }
    ASSERT_EQ(device.sequence_row[step.sequences], step.rows);
    for (int32_t i = 0; i < logit_rows; ++i) {
      ASSERT_EQ(device.logit_row[i], 5 * i);
      ASSERT_EQ(device.sampling[i].position, 7 * i);
    }
  }

  Faults faults_;
  FaultDevice device_;
  std::unique_ptr<Buffer> memory_;
  std::unique_ptr<StepBuffers> buffers_;
};

TEST_F(StepBuffersTest, AStepUploadsWhatItUses) {
  Pass({500, 2}, 2);
  EXPECT_LE(faults_.uploaded(), 12u * 500 + 4096);
  const uint64_t before = faults_.uploaded();
  Pass({8, 8}, 8);
  EXPECT_LE(faults_.uploaded() - before, 4096u);
  Pass({500, 2}, 500);
}

TEST_F(StepBuffersTest, TheLargestStepIsReadByTheDevicesThreads) {
  Pass(kLargest, kLargest.sequences);
  EXPECT_LE(faults_.uploaded(), kBesideWeightsBytes);
  Pass(kLargest, kLargest.rows);  // with log-probabilities of the whole prompt
  EXPECT_LE(faults_.largest_upload(), kBesideWeightsBytes);
}

// A captured graph finds its inputs where they were when it was captured.
TEST_F(StepBuffersTest, AllStepsOfFewRowsHaveOneLayout) {
  const StepInputs in = buffers_->small_inputs();
  const StepOutputs out = buffers_->small_outputs();
  for (const int32_t rows : {1, 2, 8}) {
    Pass({500, 2}, 2);
    Pass({rows, rows}, rows);
    EXPECT_EQ(buffers_->inputs().position, in.position);
    EXPECT_EQ(buffers_->inputs().sampling, in.sampling);
    EXPECT_EQ(buffers_->outputs().drawn, out.drawn);
    EXPECT_EQ(buffers_->outputs().top_logprob, out.top_logprob);
  }
}

}  // namespace
}  // namespace switchyard::worker
