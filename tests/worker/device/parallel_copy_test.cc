#include "worker/device/parallel_copy.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

namespace switchyard::worker {
namespace {

std::vector<uint8_t> Noise(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> noise(bytes);
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
  return noise;
}

TEST(ParallelCopy, OddSizesAndOffsets) {
  ParallelCopy copy(3);
  const std::vector<uint8_t> from = Noise(9 << 20, 1);
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{4095}, size_t{2} << 20,
                             (size_t{2} << 20) + 1, (size_t{9} << 20) - 7}) {
    std::vector<uint8_t> to(from.size(), 0);
    copy.Copy(to.data() + 5, from.data() + 2, bytes);
    EXPECT_TRUE(std::equal(from.begin() + 2, from.begin() + 2 + bytes, to.begin() + 5)) << bytes;
    EXPECT_EQ(to[4], 0);
    EXPECT_EQ(to[5 + bytes], 0);
  }
}

TEST(ParallelCopy, CallersTakeTurns) {
  ParallelCopy copy(2);
  const std::vector<uint8_t> from = Noise(5 << 20, 2);
  std::vector<std::thread> callers;
  std::vector<std::vector<uint8_t>> to(3, std::vector<uint8_t>(from.size()));
  for (auto& each : to) {
    callers.emplace_back([&] {
      for (int i = 0; i < 5; ++i) copy.Copy(each.data(), from.data(), from.size());
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const auto& each : to) EXPECT_EQ(each, from);
}

}  // namespace
}  // namespace switchyard::worker
