#pragma once

// Brings what the engine holds to what the supervisor has granted, and says how far it is.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/clock.h"
#include "worker/device/residency.h"
#include "worker/engine/engine.h"
#include "worker/engine/kv_cache.h"

namespace switchyard::worker {

// Sequences by state, and the host memory of the paused ones.
struct SequenceCounts {
  int32_t running = 0, paused = 0, waiting = 0;
  uint64_t host_kv_bytes = 0;
};

// What it does depends on the latest target alone, and on whether sequences still run:
//  1. A target that holds the whole image and the smallest pool: weights and KV grow at once, steps
//     may run while weights are on their way. KV above the target goes as it falls free.
//  2. Any other target: nobody comes in. Running sequences are paused by the engine, or finish
//     first, with `finish` the paused ones as well; then weights and KV shrink to the target.
// KV that may be used counts as held, whether its granules are committed yet or not: granting it
// cost the ledger that much.
class LeaseKeeper {
 public:
  LeaseKeeper(uint64_t image_bytes, const KvLayout& layout, Residency& residency, KvCache& cache);

  void SetTarget(const LeaseTarget& target);  // ignored if an epoch after it is known
  const LeaseTarget& target() const { return target_; }
  // What paused sequences may hold of host memory: what the target grants until it has settled,
  // then what they hold. The rest the supervisor gives to others when it hears of that.
  uint64_t host_kv_limit() const { return host_kv_limit_; }

  bool holds_model() const;  // case 1: newcomers may come in
  bool may_step() const;     // every weight is here or on its way, and the smallest pool is held
  // Case 2 with `finish`: paused sequences come back. Whoever cannot go on for its reader's sake
  // is waited for, since the lease does not outlive it; for how long, the supervisor decides.
  bool must_finish() const { return known_ && !holds_model() && target_.finish && may_step(); }
  // Running sequences must be paused, all of them: case 2 with `pause`, or when they cannot finish.
  bool must_pause_all(bool they_can_finish) const {
    if (must_finish()) return false;
    return known_ && !holds_model() && (target_.pause || !they_can_finish || !may_step());
  }
  // Running sequences must be paused until the rest fits into the target: case 1 with `pause`.
  bool must_pause_some() const { return holds_model() && target_.pause && over_target(); }

  // True if Work would take memory away that steps under way may be using.
  // `anyone_left`: runs, or is paused and must finish.
  bool WouldShrink(bool anyone_left) const;
  // Does what can be done now. If it takes memory away, steps under way have been read.
  void Work(bool anyone_left);
  // A granule could not be committed: the pool stays as large as it is.
  void KvCommitFailed(const absl::Status& why);

  // Reports if there is something to tell; progress of growth at most every 1/64 or every 10 ms.
  void Report(const SequenceCounts& counts, Nanos now, EngineSink& sink);

 private:
  bool over_target() const { return cache_.limit() > target_.kv_bytes; }
  bool may_shrink(bool anyone_left) const { return holds_model() || !anyone_left; }
  void WorkOnWeights();
  void WorkOnKv();
  LeaseReport Current(const SequenceCounts& counts) const;
  bool WorthTelling(const LeaseReport& report, Nanos now) const;

  const uint64_t image_bytes_;
  const KvLayout& layout_;
  Residency& residency_;
  KvCache& cache_;

  bool known_ = false;  // there is a target
  LeaseTarget target_;
  uint64_t host_kv_limit_ = 0;
  bool weights_pending_ = false;  // the target has not been passed on yet
  bool kv_pending_ = false;
  bool kv_stuck_ = false;  // releasing failed: not tried again for this target
  absl::Status weights_error_, kv_error_;

  bool reported_ = false;
  LeaseReport last_;
  Nanos last_time_ = 0;
};

}  // namespace switchyard::worker
