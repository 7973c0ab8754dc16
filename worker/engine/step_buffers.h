#pragma once

// What the host sends to the device for one step and gets back: two sets on the host, so that the
// next step can be filled in while one is on its way. On the device all steps use the same place,
// since they run one after the other: a captured graph finds its inputs there. Steps of few rows
// have one layout, which graphs rely on; any other has that of its own rows, so that it uploads no
// more than it needs: 12 bytes a row, and 56 more of each that has logits.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "worker/device/device.h"
#include "worker/device/host_buffer.h"

namespace switchyard::worker {

constexpr int32_t kMostTopLogprobs = 20;
constexpr int32_t kStepsOnTheirWay = 2;  // at most

struct StepCapacity {
  int32_t rows = 0;       // T, and at most as many rows with logits
  int32_t sequences = 0;  // S
};

struct StepInputs {
  int32_t* slot = nullptr;                   // [T]
  int32_t* position = nullptr;               // [T]
  int32_t* sequence_slot = nullptr;          // [S]
  int32_t* sequence_row = nullptr;           // [S + 1]
  int32_t* sequence_length = nullptr;        // [S]
  int32_t* logit_row = nullptr;              // [T]
  kernels::SamplingRow* sampling = nullptr;  // [T], last: few of its rows are used
};

struct StepOutputs {
  int32_t* drawn = nullptr;      // [T]
  float* logprob = nullptr;      // [T]
  int32_t* top_ids = nullptr;    // [T * kMostTopLogprobs]
  float* top_logprob = nullptr;  // [T * kMostTopLogprobs]
};

uint64_t StepInputBytes(StepCapacity capacity);
uint64_t StepOutputBytes(StepCapacity capacity);
StepInputs CarveStepInputs(std::byte* base, StepCapacity capacity);
StepOutputs CarveStepOutputs(std::byte* base, StepCapacity capacity);

// The place on the device, and one set on the host.
class StepBuffers {
 public:
  // `device_memory`: DeviceBytes(largest), the same for all sets.
  static absl::StatusOr<std::unique_ptr<StepBuffers>> Create(Device& device, StepCapacity largest,
                                                             std::byte* device_memory,
                                                             uint64_t table_bytes);
  static uint64_t DeviceBytes(StepCapacity largest) {
    return StepInputBytes(largest) + StepOutputBytes(largest);
  }

  // Lays out a step of this size. The step before in this set has been read.
  void Begin(StepCapacity step);
  const StepInputs& host_inputs() const { return host_inputs_; }
  const StepInputs& inputs() const { return inputs_; }     // on the device
  const StepOutputs& outputs() const { return outputs_; }  // on the device
  const StepOutputs& host_outputs() const { return host_outputs_; }
  // On the device, of every step of at most largest.sequences rows.
  StepInputs small_inputs() const { return CarveStepInputs(device_memory_, small_); }
  StepOutputs small_outputs() const {
    return CarveStepOutputs(device_memory_ + StepInputBytes(largest_), small_);
  }
  int32_t* table_staging() const { return table_staging_; }

  // All inputs, of which so many rows have logits.
  absl::Status Upload(int32_t logit_rows);
  absl::Status Download(int32_t logit_rows, bool logprobs, int32_t top);

 private:
  StepBuffers(Device& device, StepCapacity largest, std::byte* device_memory,
              std::unique_ptr<HostBuffer> host);

  Device& device_;
  const StepCapacity largest_, small_;
  std::byte* const device_memory_;
  const std::unique_ptr<HostBuffer> host_;  // inputs, outputs, block tables
  StepInputs host_inputs_, inputs_;
  StepOutputs host_outputs_, outputs_;
  int32_t* table_staging_ = nullptr;
};

}  // namespace switchyard::worker
