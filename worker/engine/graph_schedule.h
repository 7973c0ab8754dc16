#pragma once

// How many rows decode steps are padded to, and when their graphs are captured. Pure.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/model/architecture.h"

namespace switchyard::worker {

// The numbers of rows that decode steps are padded to, ascending: powers of two, and
// `max_sequences`. A row of padding costs a dense model next to nothing, since the weights are read
// for the others anyway; but it chooses experts, which are read for it alone, so a model with
// experts has every number up to eight, and then quarters of powers of two.
std::vector<int32_t> DecodeSizes(const Architecture& arch, int32_t max_sequences);

// Device memory that a GPU's driver keeps for the graphs of all these sizes, at most.
uint64_t GraphBytes(const Architecture& arch, int32_t max_sequences);

// A decode step: one row of each of its sequences, each of which draws a token. On a device that
// has graphs it is padded to one of a few sizes, so that a few graphs serve every number of
// sequences; and whether a graph runs it or its ops one by one, the kernels are the same.
//
// 1. While there is nothing else to do, one missing size after the other is captured, the smallest
//    first: most requests find them there.
// 2. A worker that is never idle gets them too: a size is captured in front of a step once many
//    steps of it have run op by op.
// 3. A size that could not be captured is left alone.
class GraphSchedule {
 public:
  explicit GraphSchedule(const std::vector<int32_t>& sizes);

  // The size for so many rows: 1 to the largest size.
  int32_t SizeFor(int32_t rows) const;

  int32_t NextWhenIdle() const;  // 0: none is missing
  bool DueInFrontOf(int32_t size) const;

  void RanEagerly(int32_t size) { ++entries_[IndexOf(size)].eager; }
  void Captured(int32_t size) { entries_[IndexOf(size)].state = State::kCaptured; }
  void Failed(int32_t size) { entries_[IndexOf(size)].state = State::kFailed; }

 private:
  enum class State : uint8_t { kMissing, kCaptured, kFailed };
  struct Entry {
    int32_t size = 0;
    State state = State::kMissing;
    int64_t eager = 0;  // steps that ran op by op
  };
  size_t IndexOf(int32_t size) const;

  std::vector<Entry> entries_;  // by size
};

}  // namespace switchyard::worker
