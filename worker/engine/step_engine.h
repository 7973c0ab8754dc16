#pragma once

// The engine itself: owns all state, on one thread. See engine.h for what it does.

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "worker/engine/batcher.h"
#include "worker/engine/command_queue.h"
#include "worker/engine/engine.h"
#include "worker/engine/event_batch.h"
#include "worker/engine/lease_keeper.h"
#include "worker/engine/sequence_table.h"
#include "worker/engine/stats_board.h"
#include "worker/engine/step_predictor.h"
#include "worker/engine/step_runner.h"

namespace switchyard::worker {

class StepEngine final : public Engine {
 public:
  static absl::StatusOr<std::unique_ptr<StepEngine>> Create(const Architecture& arch,
                                                            const ImageLayout& image,
                                                            const EngineLimits& limits,
                                                            Device& device, kernels::Ops& ops,
                                                            const Clock& clock, EngineSink& sink);
  ~StepEngine() override;

  void Submit(SequenceRequest request) override { commands_.Push(std::move(request)); }
  void Cancel(RequestId id) override;
  void Finish(RequestId id) override { commands_.Push(FinishCommand{id}); }
  void Suspend(RequestId id, bool suspended) override {
    commands_.Push(SuspendCommand{id, suspended});
  }
  void SetLease(const LeaseTarget& target) override;
  void SetSource(std::shared_ptr<WeightSource> source) override;
  EngineStats Stats() const override { return stats_.Read(clock_.Now()); }

  bool Iterate() override;
  void Run() override;
  void Stop() override;

 private:
  // The lists that a plan's indices refer to.
  struct Picture {
    std::vector<std::shared_ptr<Sequence>> running, paused, waiting;
    std::vector<BatchItem> running_items, paused_items, waiting_items;
  };

  StepEngine(const Architecture& arch, const ImageLayout& image, const EngineLimits& limits,
             Device& device, const Clock& clock, EngineSink& sink);
  absl::Status Build(kernels::Ops& ops);

  // Commands and deadlines (step_engine_commands.cc).
  void ApplyCommands();
  void Apply(SequenceRequest request);
  void Apply(CancelCommand command);
  void Apply(FinishCommand command);
  void Apply(SuspendCommand command);
  void Apply(const LeaseTarget& target);
  void ExpireDeadlines();
  void End(Sequence& sequence, SequenceEnd end, std::string error = "");

  // The lease, pausing and resuming (step_engine_lease.cc).
  bool TendLease();
  void PauseForLease();
  void Pause(const std::vector<std::shared_ptr<Sequence>>& leaving);
  std::unique_ptr<PausedKv> SaveKv(const Sequence& sequence);
  void AwaitSaved(const std::vector<std::shared_ptr<Sequence>>& leaving);
  bool Resume(Sequence& sequence);
  void DropRestored(std::vector<std::unique_ptr<PausedKv>>& restored);
  void Report();

  // Steps (step_engine.cc).
  bool LaunchStep();
  Picture TakePicture() const;
  BatchItem ItemOf(const Sequence& sequence) const;
  BatchPlan Plan(const Picture& picture) const;
  std::vector<SequenceRows> CarryOut(const BatchPlan& plan, const Picture& picture);
  std::vector<SequenceRows> HoldBlocks(std::vector<SequenceRows> rows);
  void Launch(std::vector<SequenceRows> rows);
  absl::Status WhileWeightsArrive();
  bool CaptureGraph();
  void StepFailed(const std::vector<SequenceRows>& rows, const absl::Status& why);
  void ReadStep();  // the oldest step on its way
  void ReadAll();   // so that positions, tokens and memory are what they seem
  void ReadRows(const Launched& launched, const SequenceRows& rows, Nanos now);
  void ReadScores(const Launched& launched, const SequenceRows& rows);
  SequenceCounts Counts() const;
  void PublishStats();
  void Tell();  // what has come about

  const Architecture& arch_;
  const ImageLayout& image_;
  const EngineLimits limits_;
  const KvLayout kv_layout_;
  Device& device_;
  const Clock& clock_;
  EngineSink& sink_;

  CommandQueue commands_;
  std::atomic<uint64_t> asked_kv_ = 0;  // of the latest SetLease
  StatsBoard stats_;
  StepPredictor predictor_;
  SequenceTable sequences_;
  EventBatch events_;
  std::unique_ptr<Residency> residency_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<LeaseKeeper> lease_;
  std::deque<Launched> on_their_way_;
  // Of sequences that have come back: the next step's stream may still be reading it.
  std::vector<std::unique_ptr<PausedKv>> restored_;
  uint64_t host_kv_bytes_ = 0;  // of paused sequences, and of these
};

}  // namespace switchyard::worker
