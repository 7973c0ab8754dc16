#include "tests/support/fake_worker_faults.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "absl/strings/str_split.h"

namespace switchyard::testing {

Faults::Faults(const std::string& model) {
  const char* fault = std::getenv("SWITCHYARD_FAKE_FAULT");
  if (fault == nullptr) return;
  const std::vector<std::string> parts = absl::StrSplit(fault, ':');
  if (parts.size() != 3 || (parts[0] != "*" && parts[0] != model)) return;
  phase_ = parts[1];
  action_ = parts[2];
}

bool Faults::At(const std::string& phase) {
  if (phase != phase_) return false;
  if (const char* once = std::getenv("SWITCHYARD_FAKE_ONCE")) {
    if (::unlink(once) != 0) return false;
  }
  if (action_ == "crash") {
    std::fprintf(stderr, "fake worker: crashing at %s, as told\n", phase.c_str());
    std::fflush(stderr);
    std::abort();
  }
  while (action_ == "hang") ::pause();
  if (action_ == "slow") ::usleep(500'000);
  return action_ == "fail";
}

}  // namespace switchyard::testing
