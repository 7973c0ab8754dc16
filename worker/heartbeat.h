#pragma once

#include <cstdint>
#include <functional>

#include "common/clock.h"
#include "common/executor.h"
#include "switchyard/v1/worker.pb.h"
#include "worker/engine/engine.h"
#include "worker/outbox.h"

namespace switchyard::worker {

v1::Heartbeat MakeHeartbeat(const EngineStats& stats, Nanos now, uint64_t rss_bytes);

// Resident memory of this process; 0 if /proc does not tell.
uint64_t ResidentBytes();

// Sends heartbeats: one at once, then at every interval from a thread of its own, which waits for
// nothing else. `stats` must not block.
class Heartbeats {
 public:
  Heartbeats(const Clock& clock, Outbox& outbox, std::function<EngineStats()> stats,
             Nanos interval = 500 * kMillisecond);
  ~Heartbeats() { Stop(); }
  void Stop() { thread_.Stop(); }

 private:
  void Beat();

  const Clock& clock_;
  Outbox& outbox_;
  const std::function<EngineStats()> stats_;
  const Nanos interval_;
  Executor thread_;
};

}  // namespace switchyard::worker
