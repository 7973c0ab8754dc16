#pragma once

#include <cstdint>

#include "common/clock.h"
#include "switchyard/v1/worker.pb.h"

// When a resident model has to prove that work gets done, and when it is taken to be stuck. Pure.
//
// Proof is a token that has come out: of a client's request, or, when there has been none for an
// interval, of a request of our own, a probe.
namespace switchyard::supervisor {

namespace v1 = ::switchyard::v1;

// How long a step may run, and how long a worker that should run steps may run none: ten times what
// it predicted, at least 5 s.
Nanos LongestStep(uint64_t predicted_ns);

struct Proof {
  Nanos resident_since = 0;  // when its lease last came to rest
  Nanos proved_at = 0;       // its last token; 0: none yet
  bool doubted = false;      // it has failed, and has not proved itself since
};

// When the next probe is due. `jitter`, from 0 to 1, takes up to a quarter off the interval, so
// that models which came together are not probed together.
Nanos ProbeDueAt(const Proof& proof, Nanos interval, double jitter);

// Whether a probe that has had no answer for LongestStep is given up: no step has ended since the
// worker had finished `steps_before` of them, and none runs that may still take its time.
bool StandsStill(uint64_t steps_before, const v1::Heartbeat& last);

}  // namespace switchyard::supervisor
