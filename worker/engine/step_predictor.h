#pragma once

#include <array>
#include <cstdint>

#include "common/clock.h"

namespace switchyard::worker {

// How long a step of so many rows will take, from those that went before; for the judgement that a
// worker hangs, so rather too long than too short.
class StepPredictor {
 public:
  // Before anything was measured: a device so slow that it reads the image at 1 GB/s and computes
  // 2 GFLOP/s.
  StepPredictor(uint64_t image_bytes, int64_t parameters)
      : image_bytes_(image_bytes), parameters_(parameters) {}

  void Observe(int32_t rows, Nanos took);
  // `missing_bytes`: of the image, for which the step will wait.
  Nanos Predict(int32_t rows, uint64_t missing_bytes) const;

 private:
  static int Bucket(int32_t rows);  // by powers of two

  const uint64_t image_bytes_;
  const int64_t parameters_;
  std::array<Nanos, 32> slowest_ = {};  // of each bucket, lately; 0: none yet
};

}  // namespace switchyard::worker
