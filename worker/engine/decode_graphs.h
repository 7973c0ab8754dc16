#pragma once

// The graphs of decode steps, by size.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/device.h"
#include "worker/engine/graph_schedule.h"

namespace switchyard::worker {

class DecodeGraphs {
 public:
  // `forward` launches the step of so many rows on the device's compute stream, op by op. What it
  // passes to the ops depends on that number alone.
  using Forward = std::function<absl::Status(int32_t size)>;

  // Without `capture` every step runs op by op.
  DecodeGraphs(Device& device, const std::vector<int32_t>& sizes, bool capture, Forward forward);

  int32_t SizeFor(int32_t rows) const { return schedule_.SizeFor(rows); }

  // Launches the step of `size` rows. All weights, and all blocks that it touches, are committed.
  absl::Status Launch(int32_t size);

  // The size that CaptureOne would capture; 0: none.
  int32_t NextWhenIdle() const { return capture_ ? schedule_.NextWhenIdle() : 0; }
  // While there is nothing else to do. `size` has been told by NextWhenIdle, and the inputs of a
  // step of nothing but padding are on the device: it runs once op by op, so that all that is
  // loaded or chosen at first use is there. An error is the device's; what cannot be captured is
  // logged, and runs op by op from then on.
  absl::Status CaptureOne(int32_t size);

 private:
  void Capture(int32_t size);

  Device& device_;
  const bool capture_;
  const Forward forward_;
  GraphSchedule schedule_;
  std::map<int32_t, std::unique_ptr<Graph>> graphs_;
};

}  // namespace switchyard::worker
