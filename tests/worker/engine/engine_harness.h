#pragma once

// An engine, its sink, and a clock that the test owns.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/worker/device/fault_device.h"
#include "tests/worker/engine/recorded_ops.h"
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

// kRecorded: of calls to ops, kept and repeated.
enum class HarnessGraphs : uint8_t { kOfDevice, kRecorded };

// What most tests of the engine run under: steps launched ahead, or not, or as graphs.
enum class Launching : uint8_t { kEach, kAhead, kGraphs };
inline HarnessGraphs GraphsOf(Launching launching) {
  return launching == Launching::kGraphs ? HarnessGraphs::kRecorded : HarnessGraphs::kOfDevice;
}

// Whether bytes of ones are NaN in a tensor, and what it holds is computed with: numbers of fp8 are
// looked at when the image is filled, and a router's correction only chooses.
bool CanBeNan(const ImageTensor& tensor);

// The rows of a matrix, or of its scales.
struct RowRange {
  int64_t first = 0, count = 0;
};
// The rows of values in a layer's q, k and v that can be NaN; none in any other tensor.
RowRange ValueRows(const Architecture& arch, const ImageTensor& tensor);

// A tensor of an image that is all NaN, or some of its rows, until it goes.
class Damage {
 public:
  Damage(const ImageTensor& tensor, std::vector<std::byte>& image);
  Damage(const ImageTensor& tensor, RowRange rows, std::vector<std::byte>& image);
  Damage(const Damage&) = delete;
  ~Damage();

 private:
  std::byte* const at_;
  const std::vector<std::byte> whole_;
};

// Three tokens, of which only the first is damaged where `first` is.
SequenceRequest AfterToken(int32_t first, RequestId id);

class EngineHarness final : public EngineSink {
 public:
  // `device`: `cpu` if null.
  EngineHarness(const Architecture& arch, const ImageLayout& image, const std::byte* master,
                const EngineLimits& limits, kernels::Ops& ops,
                HarnessGraphs graphs = HarnessGraphs::kOfDevice,
                std::unique_ptr<Device> device = nullptr);

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

  // Nothing, once all that have begun have finished.
  void TakeAllFinished() { engine_->SetLease({.epoch = ++epoch_, .finish = true}); }

  // Iterates until there is nothing to do and the last lease is settled.
  void Settle();
  void Iterate(int times);

  Outcome& of(RequestId id) { return outcomes_[id]; }
  const std::vector<LeaseReport>& reports() const { return reports_; }
  uint64_t last_epoch() const { return epoch_; }
  // Of every event and report, on the engine's thread, for tests that look on from another.
  std::function<void(const SequenceEvent&)> on_event = [](const SequenceEvent&) {};
  std::function<void(const LeaseReport&)> on_report = [](const LeaseReport&) {};

  void OnEvents(std::vector<SequenceEvent> events) override;
  void OnLease(const LeaseReport& report) override;

 private:
  const ImageLayout& image_;
  Faults faults_;
  Tape tape_;
  RecordedOps ops_;
  FaultDevice device_;
  const KvLayout kv_;
  ManualClock clock_;
  uint64_t epoch_ = 0;
  std::map<RequestId, Outcome> outcomes_;
  std::vector<LeaseReport> reports_;
  std::unique_ptr<Engine> engine_;  // last: its destruction uses the rest
};

}  // namespace switchyard::worker
