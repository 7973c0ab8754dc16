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

// Finds out steps that hang. As everything else they are judged in two looks, a tenth of
// LongestStep apart, which is as long as was predicted: the machine, or its container, may have
// been stopped while its clock went on. The first look comes early, so that the second is none too
// late.
class StepWatch {
 public:
  // Whether the step that `beat` tells of hangs, of whose time `running` counts.
  bool Hangs(const v1::Heartbeat& beat, Nanos running, Nanos now);

 private:
  uint64_t steps_ = 0;   // that had ended at the first look
  Nanos looked_at_ = 0;  // then; 0: there was none
};

// The time in which a model could have proved itself and has not. It adds up: two models whose
// workers run no step would else take turns for ever, neither of them resident for long enough to
// be found out.
class Unproved {
 public:
  // Whether it could from now on: it is resident, and its lease is at rest.
  void Could(bool could, Nanos now);
  // It has proved itself, or its worker has ended.
  void Reset(Nanos now);
  Nanos Spent(Nanos now) const { return spent_ + (could_ ? now - since_ : 0); }

 private:
  bool could_ = false;
  Nanos since_ = 0;
  Nanos spent_ = 0;
};

// How long after the last proof a probe is due. `jitter`, from 0 to 1, takes up to a quarter off
// the interval, so that models which came together are not probed together.
Nanos ProbeAfter(Nanos interval, double jitter);

// Whether, by what it last said, a worker is in a step that may still take its time.
bool InAStep(const v1::Heartbeat& last);

// Whether a probe that has had no answer for LongestStep is given up: no step has ended since the
// worker had finished `steps_before` of them, and none runs that may still take its time.
bool StandsStill(uint64_t steps_before, const v1::Heartbeat& last);

// Whether a sequence ended because its logits were no numbers: that is the fault of the weights,
// which the next worker gets as well.
bool IsDamage(const v1::Rejected& rejected);

// Whether it ended for that, or since the worker could not go on: by no fault of the request.
bool IsFault(const v1::Rejected& rejected);

}  // namespace switchyard::supervisor
