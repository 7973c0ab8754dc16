#pragma once

// Top-k and top-p over a large vocabulary without sorting it.

#include <cstdint>

namespace switchyard::kernels {

// The tokens that are left: those above `value`, and those equal to it up to id `id`. So ties go to
// the lower id, and any cut of the sorted vocabulary is one pair of numbers.
struct Cutoff {
  float value;
  int32_t id;
  bool Keeps(float x, int32_t token) const { return x > value || (x == value && token <= id); }
};

// scores: at most 0, the largest is 0. probabilities: exp(scores). order: room for `count` ids.
struct Scores {
  const float* scores = nullptr;
  const float* probabilities = nullptr;
  int32_t count = 0;
  int32_t* order = nullptr;
};

// The `most` best of what `before` keeps.
Cutoff CutToCount(const Scores& s, Cutoff before, int64_t most);

// The fewest best of what `before` keeps whose probability is at least `share` of all that it
// keeps; at least one.
Cutoff CutToShare(const Scores& s, Cutoff before, double share);

}  // namespace switchyard::kernels
