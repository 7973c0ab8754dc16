#pragma once

#include <atomic>
#include <cstdint>

#include "worker/engine/busy_time.h"
#include "worker/engine/engine.h"

namespace switchyard::worker {

// EngineStats that one thread writes and any thread reads without waiting. Fields are read one by
// one: two of them may be of two neighbouring steps.
class StatsBoard {
 public:
  void StepStarted(Nanos now, Nanos predicted) {
    predicted_ = predicted;
    started_ = now;
    busy_.Start(now);
  }
  void StepFailed(Nanos now) { Stop(now); }  // or was nobody's
  void StepFinished(Nanos now) {
    ++steps_;
    Stop(now);
  }
  void AddTokens(uint64_t count) { tokens_ += count; }
  void SetSequences(int32_t running, int32_t waiting, int32_t paused) {
    running_ = running;
    waiting_ = waiting;
    paused_ = paused;
  }
  void SetBlocks(uint64_t used, uint64_t total) {
    blocks_used_ = used;
    blocks_total_ = total;
  }

  EngineStats Read(Nanos now) const {
    EngineStats stats;
    stats.steps = steps_;
    stats.tokens = tokens_;
    stats.step_started = started_;
    stats.step_predicted = predicted_;
    stats.busy = busy_.At(now);
    stats.running = running_;
    stats.waiting = waiting_;
    stats.paused = paused_;
    stats.kv_blocks_used = blocks_used_;
    stats.kv_blocks_total = blocks_total_;
    return stats;
  }

 private:
  void Stop(Nanos now) {
    started_ = 0;
    busy_.Stop(now);
  }

  std::atomic<uint64_t> steps_ = 0, tokens_ = 0;
  std::atomic<Nanos> started_ = 0, predicted_ = 0;
  BusyTime busy_;
  std::atomic<int32_t> running_ = 0, waiting_ = 0, paused_ = 0;
  std::atomic<uint64_t> blocks_used_ = 0, blocks_total_ = 0;
};

}  // namespace switchyard::worker
