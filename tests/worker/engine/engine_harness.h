#pragma once

// An engine, its sink, and a clock that the test owns.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/worker/device/fault_device.h"
#include "worker/engine/engine.h"

namespace switchyard::worker {

class ManualClock final : public Clock {
 public:
  Nanos Now() const override { return now_; }
  void Advance(Nanos by) { now_ += by; }

 private:
  std::atomic<Nanos> now_ = kSecond;
};

// What has become of one request.
struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<TokenResult> results;
  std::vector<TokenResult> prompt;
  int paused = 0, resumed = 0;
  SequenceEnd end = SequenceEnd::kNone;
  std::string error;
  SequenceTimes times;
  int events_after_end = 0;
};

class EngineHarness final : public EngineSink {
 public:
  EngineHarness(const Architecture& arch, const ImageLayout& image, const std::byte* master,
                const EngineLimits& limits, kernels::Ops& ops);

  Engine& engine() { return *engine_; }
  const KvLayout& kv() const { return kv_; }
  ManualClock& clock() { return clock_; }
  Faults& faults() { return faults_; }

  // The next epoch: the whole image and this much KV, all of it, part of it, or nothing.
  void Grant(uint64_t weight_bytes, uint64_t kv_bytes, bool pause = false,
             uint64_t host_kv_bytes = 0);
  void GrantAll() { Grant(image_.bytes, kv_.useful_bytes, false, uint64_t{1} << 30); }
  void GrantSmallest(uint64_t host_kv_bytes = 0) {
    Grant(image_.bytes, kv_.smallest_bytes, false, host_kv_bytes);
  }
  void TakeAll(bool pause, uint64_t host_kv_bytes = uint64_t{1} << 30) {
    Grant(0, 0, pause, host_kv_bytes);
  }

  // Iterates until there is nothing to do and the last lease is settled.
  void Settle();
  void Iterate(int times);

  Outcome& of(RequestId id) { return outcomes_[id]; }
  const std::vector<LeaseReport>& reports() const { return reports_; }
  uint64_t last_epoch() const { return epoch_; }

  void OnEvents(std::vector<SequenceEvent> events) override;
  void OnLease(const LeaseReport& report) override;

 private:
  const ImageLayout& image_;
  const KvLayout kv_;
  Faults faults_;
  FaultDevice device_;
  ManualClock clock_;
  uint64_t epoch_ = 0;
  std::map<RequestId, Outcome> outcomes_;
  std::vector<LeaseReport> reports_;
  std::unique_ptr<Engine> engine_;  // last: its destruction uses the rest
};

}  // namespace switchyard::worker
