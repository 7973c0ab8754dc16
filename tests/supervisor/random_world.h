#pragma once

#include <cstdint>
#include <vector>

#include "supervisor/router.h"
#include "tests/supervisor/random_choice.h"
#include "tests/support/fake_world.h"

namespace switchyard::supervisor {

// Models, devices that hold from barely one of them to nearly all, and what goes wrong there.
struct RandomWorld {
  RandomWorld(uint64_t seed, RandomChoice& choice);

  uint64_t more_fixed;  // bytes that a model takes beyond its plan
  RouterOptions options;
  WorldRules rules;
  std::vector<ModelEntry> catalog;

 private:
  void AddDevices(RandomChoice& choice);
};

}  // namespace switchyard::supervisor
