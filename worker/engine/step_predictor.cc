#include "worker/engine/step_predictor.h"

#include <algorithm>
#include <bit>

namespace switchyard::worker {

int StepPredictor::Bucket(int32_t rows) {
  return std::bit_width(static_cast<uint32_t>(std::max(rows, 1))) - 1;
}

void StepPredictor::Observe(int32_t rows, Nanos took) {
  Nanos& slowest = slowest_[Bucket(rows)];
  // Up at once, down slowly: one fast step does not make the next slow one a hang.
  slowest = took > slowest ? took : slowest - (slowest - took) / 16;
}

Nanos StepPredictor::Predict(int32_t rows, uint64_t missing_bytes) const {
  const auto missing = static_cast<Nanos>(missing_bytes);  // 1 ns a byte
  const int bucket = Bucket(rows);
  if (slowest_[bucket] > 0) return slowest_[bucket] + missing;
  // Time grows no faster than rows: scale the nearest smaller step up, or take a larger one as it
  // is.
  for (int b = bucket - 1; b >= 0; --b) {
    if (slowest_[b] > 0) return (slowest_[b] << (bucket - b)) + missing;
  }
  for (size_t b = bucket + 1; b < slowest_.size(); ++b) {
    if (slowest_[b] > 0) return slowest_[b] + missing;
  }
  return static_cast<Nanos>(image_bytes_) + parameters_ * rows + missing;
}

}  // namespace switchyard::worker
