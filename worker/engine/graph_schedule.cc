#include "worker/engine/graph_schedule.h"

#include <algorithm>

#include "common/check.h"
#include "common/checked.h"

namespace switchyard::worker {
namespace {

// Steps of a size that run op by op before it is captured in front of one: that costs several
// steps' time, which the first request's first tokens are not to wait for.
constexpr int64_t kEagerSteps = 32;

// Kernels, at most: a layer of glm4_moe has 21.
constexpr uint64_t kLayerLaunches = 24, kOtherLaunches = 16;
// What the driver keeps for one, at most. Measured: four graphs of 80 dense layers take three
// pieces of 2 MiB, those of the demonstration models find room in what a context has anyway (H200,
// driver 580; gpu_engine_test prints it).
constexpr uint64_t kLaunchBytes = 3072;
constexpr uint64_t kDriverPiece = uint64_t{2} << 20;

constexpr int32_t kEachUpTo = 8;  // with experts

}  // namespace

std::vector<int32_t> DecodeSizes(const Architecture& arch, int32_t max_sequences) {
  SY_CHECK(max_sequences >= 1);
  const bool experts = std::any_of(arch.layers.begin(), arch.layers.end(),
                                   [](const LayerShape& layer) { return layer.moe; });
  std::vector<int32_t> sizes;
  for (int32_t power = 1, size = 1; size < max_sequences;) {
    sizes.push_back(size);
    if (size == 2 * power) power = size;
    size += !experts ? size : size < kEachUpTo ? 1 : power / 4;
  }
  sizes.push_back(max_sequences);
  return sizes;
}

uint64_t GraphBytes(const Architecture& arch, int32_t max_sequences) {
  const uint64_t launches = arch.layers.size() * kLayerLaunches + kOtherLaunches;
  return RoundUp(DecodeSizes(arch, max_sequences).size() * launches * kLaunchBytes, kDriverPiece);
}

GraphSchedule::GraphSchedule(const std::vector<int32_t>& sizes) {
  for (const int32_t size : sizes) entries_.push_back({.size = size});
  SY_CHECK(!entries_.empty());
}

size_t GraphSchedule::IndexOf(int32_t size) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [size](const Entry& entry) { return entry.size == size; });
  SY_CHECK(found != entries_.end());
  return static_cast<size_t>(found - entries_.begin());
}

int32_t GraphSchedule::SizeFor(int32_t rows) const {
  SY_CHECK(rows >= 1 && rows <= entries_.back().size);
  return std::find_if(entries_.begin(), entries_.end(),
                      [rows](const Entry& entry) { return entry.size >= rows; })
      ->size;
}

int32_t GraphSchedule::NextWhenIdle() const {
  for (const Entry& entry : entries_) {
    if (entry.state == State::kMissing) return entry.size;
  }
  return 0;
}

bool GraphSchedule::DueInFrontOf(int32_t size) const {
  const Entry& entry = entries_[IndexOf(size)];
  return entry.state == State::kMissing && entry.eager >= kEagerSteps;
}

}  // namespace switchyard::worker
