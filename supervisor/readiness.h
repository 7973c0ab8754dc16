#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/clock.h"

// When the service manager is told that we are ready: a request is going to be answered from then
// on. Pure.
namespace switchyard::supervisor {

// How far a model is from answering.
struct Standing {
  enum class Kind {
    kAnswers,  // its worker takes requests; one that is pinned has shown with a token that it works
    kComes,    // not yet, and nothing says that it will not
    kCannot,   // not as things are: it has failed, does not fit, or there is no room for it
  };
  std::string model;
  bool pinned = false;
  Kind kind = Kind::kComes;
  uint64_t progress = 0;  // another number whenever it has got on
};

struct Readiness {
  bool ready = false;
  std::vector<std::string> missing;  // the models that are, or were, waited for
};

// Ready when every pinned model answers or cannot, and some model answers or all cannot. It is not
// waited for longer than kLongestUnready, nor than kLongestIdle without any progress: then we are
// ready without what is missing. `waited`: since the first look. `idle`: without progress.
Readiness ReadinessOf(const std::vector<Standing>& models, Nanos waited, Nanos idle);

constexpr Nanos kLongestUnready = 900 * kSecond;  // 90 GB from a slow disk
constexpr Nanos kLongestIdle = 120 * kSecond;     // a worker may take that long to start

}  // namespace switchyard::supervisor
