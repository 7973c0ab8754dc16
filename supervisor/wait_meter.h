#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace switchyard::supervisor {

// How long others have held up the requests for one model, and when that has been long enough.
// Pure: the time is told.
//
// The meter runs while others hold the requests up, and stands while nobody does: their model is
// resident, or is being loaded. It never goes back, so waiting adds up: a load that is given up has
// cost its own time and nothing else. Only a turn that the model has really had settles what was
// waited for it (BeginAnew).
//
// A request's own wait is what the meter has run since it began. Its bound is the largest that
// there was meanwhile, since whoever comes later may be let in first. Requests that began under the
// same bound are one cohort: so all this costs as much as there are cohorts, mostly one, and
// nothing for each request.
class WaitMeter {
 public:
  // Who waits: where the meter stood when they began, and their ids.
  using Line = std::set<std::pair<Nanos, uint64_t>>;

  Nanos Reading(Nanos now) const { return ran_ + (runs_ ? now - since_ : 0); }
  bool runs() const { return runs_; }
  void SetRuns(bool runs, Nanos now);
  // The model has had a turn: all who still wait begin to wait for the next one.
  void BeginAnew(Nanos now);
  // From now on, as long as the meter runs, nobody of `line` has a smaller bound.
  void SetBound(Nanos bound, const Line& line, Nanos now);

  // Of a request that began at this reading.
  Nanos WaitedOf(Nanos began, Nanos now) const;
  Nanos BoundOf(Nanos began) const;  // 0: none was set
  // When the first of `line` will have waited for its bound if the meter runs from now on; nullopt
  // if there is nobody, or no bound.
  std::optional<Nanos> FirstDue(const Line& line, Nanos now) const;
  // All that will have by `by`.
  std::vector<uint64_t> DueBy(Nanos by, const Line& line, Nanos now) const;

 private:
  struct Cohort {
    Nanos from = 0;  // who began at this reading or later, and before the next cohort's
    Nanos bound = 0;
  };

  bool NobodyInLast(const Line& line) const;

  Nanos ran_ = 0;
  Nanos since_ = 0;  // when it was looked at last
  bool runs_ = false;
  Nanos anew_ = 0;               // no wait counts from before this reading
  Nanos bound_at_ = -1;          // the reading when a bound was set last
  std::vector<Cohort> cohorts_;  // by `from`; bounds fall
};

}  // namespace switchyard::supervisor
