#pragma once

// A model in this process, straight on its engine: no service, no supervisor.

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/limits.h"
#include "common/clock.h"
#include "kernels/ops.h"
#include "worker/device/device.h"
#include "worker/engine/engine.h"
#include "worker/opened_model.h"

namespace switchyard::bench {

class EngineRun final : private worker::EngineSink {
 public:
  struct Settings {
    std::string checkpoint;
    std::string device = "cpu";  // or a GPU's UUID
    bool graphs = true;          // where the device has them
    int threads = 1;             // of `cpu`
    int32_t context_length = 0;
    int32_t max_sequences = 1;
    int32_t prefill_chunk = 0;
  };
  // Reads the checkpoint into a master of its own and makes the model resident.
  static absl::StatusOr<std::unique_ptr<EngineRun>> Start(const Settings& settings);
  ~EngineRun() override;

  struct Result {
    std::vector<int32_t> tokens;
    std::vector<Nanos> at;  // when the step of each token was reported
    worker::SequenceTimes times;
    std::string error;
  };
  // Random prompts of `prompt` tokens, greedy, `tokens` tokens each; all at once. They have ended
  // when it returns.
  std::vector<Result> Generate(int sequences, int32_t prompt, int32_t tokens);

  const worker::OpenedModel& model() const { return *model_; }
  // GB/s: on `cpu` what its memory is read at, measured on the same bytes; on a GPU what a copy on
  // the device reads and writes. 0: it could not be measured.
  double MeasureLimit(int threads);
  const char* limit_name() const { return on_cpu_ ? "memory read" : "device copy"; }
  // Bytes of weights that a decode step of `sequences` reads at least: each matrix once, of experts
  // those that can have been chosen.
  double WeightBytesPerStep(int sequences) const;

 private:
  EngineRun() = default;
  absl::Status Load();
  absl::Status BecomeResident(bool graphs);
  void OnEvents(std::vector<worker::SequenceEvent> events) override;
  void OnLease(const worker::LeaseReport& report) override;

  std::unique_ptr<const worker::OpenedModel> model_;
  std::unique_ptr<worker::Device> device_;
  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<Buffer> master_;
  std::unique_ptr<worker::Buffer> copy_from_, copy_to_;  // of a GPU's limit
  bool on_cpu_ = true;
  SteadyClock clock_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Result> results_;
  int unfinished_ = 0;
  worker::LeaseReport lease_;
  uint64_t next_id_ = 1;

  std::unique_ptr<worker::Engine> engine_;
  std::thread thread_;
};

}  // namespace switchyard::bench
