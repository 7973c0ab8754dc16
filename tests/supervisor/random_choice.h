#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace switchyard::supervisor {

// What a random life draws, all of it from one seed.
class RandomChoice {
 public:
  explicit RandomChoice(uint64_t seed) : random_(seed * 7919 + 1) {}

  uint64_t Below(uint64_t bound) { return random_() % bound; }
  int64_t Pick(const std::vector<int64_t>& from) { return from[Below(from.size())]; }
  // A rate of a fault: mostly none.
  double Rate(double most) {
    return Below(3) == 0 ? most * static_cast<double>(Below(100)) / 100 : 0;
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace switchyard::supervisor
