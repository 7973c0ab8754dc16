// Drives the router through random lives of random worlds, one per seed, and checks after every
// event what must always hold (tests/support/router_harness.cc) and at the end that nothing is left
// over.
//
//   SWITCHYARD_SEEDS=N        how many seeds (default 2000, with sanitizers 100)
//   SWITCHYARD_FIRST_SEED=S   from which on (default 1)
//   SWITCHYARD_SEED=S         only this one

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>

#include "tests/supervisor/random_life.h"

namespace switchyard::supervisor {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

#ifdef SWITCHYARD_SANITIZED
constexpr uint64_t kSeeds = 100;
#else
constexpr uint64_t kSeeds = 2000;
#endif

// Seeds are independent of each other: every core takes the next one.
TEST(RouterSimulation, KeepsItsPromises) {
  const bool single = std::getenv("SWITCHYARD_SEED") != nullptr;
  const uint64_t first =
      FromEnvironment("SWITCHYARD_SEED", FromEnvironment("SWITCHYARD_FIRST_SEED", 1));
  const uint64_t end = first + (single ? 1 : FromEnvironment("SWITCHYARD_SEEDS", kSeeds));
  std::atomic<uint64_t> next = first;
  std::mutex mutex;
  std::map<uint64_t, std::string> failures;
  Tally total;
  auto work = [&] {
    for (uint64_t seed = next++; seed < end; seed = next++) {
      RandomLife life(seed);
      const std::string wrong = life.Run();
      const std::lock_guard<std::mutex> lock(mutex);
      total.Add(life.Count());
      if (wrong.empty()) continue;
      failures[seed] = wrong;
      if (failures.size() >= 5) next = end;
    }
  };
  std::vector<std::thread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::thread& thread : threads) thread = std::thread(work);
  for (std::thread& thread : threads) thread.join();
  std::cout << end - first << " lives: " << total.Text() << "\n";
  for (const auto& [seed, wrong] : failures)
    ADD_FAILURE() << "SWITCHYARD_SEED=" << seed << ": " << wrong;
}

}  // namespace
}  // namespace switchyard::supervisor
