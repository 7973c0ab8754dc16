#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "common/executor.h"
#include "kernels/ops.h"
#include "switchyard/v1/worker.pb.h"
#include "worker/device/device.h"
#include "worker/device/weight_source.h"
#include "worker/engine/engine.h"
#include "worker/opened_model.h"
#include "worker/outbox.h"
#include "worker/requests.h"

namespace switchyard::worker {

// The engine's life: created when the fixed part of the lease is granted, run on a thread of its
// own, destroyed when the fixed part is taken back.
class EngineHost final : private EngineSink {
 public:
  EngineHost(const OpenedModel& model, Device& device, kernels::Ops& ops, const Clock& clock,
             Requests& requests, Outbox& outbox);
  ~EngineHost() override { Stop(); }

  // Returns at once; answered with LeaseStatus.
  void SetLease(const v1::SetLease& command);
  // When it returns, the old source is not read any more.
  void SetSource(std::shared_ptr<WeightSource> source);
  // Never blocks for long; counters go on over engines.
  EngineStats Stats() const;
  void Stop();

 private:
  void OnEvents(std::vector<SequenceEvent> events) override;
  void OnLease(const LeaseReport& report) override;

  // On thread_.
  void RunLease(const v1::SetLease& command);
  void RunWithoutFixed(const v1::SetLease& command);
  void Grow(const v1::SetLease& command);
  void FinishRelease(v1::LeaseStatus status);
  absl::Status CreateEngine();
  void DestroyEngine();
  v1::LeaseStatus Settled(uint64_t epoch, const std::string& error) const;
  void Tell(v1::LeaseStatus status);

  const OpenedModel& model_;
  Device& device_;
  kernels::Ops& ops_;
  const Clock& clock_;
  Requests& requests_;
  Outbox& outbox_;

  std::atomic<uint64_t> epoch_ = 0;      // newest that was taken up
  std::atomic<bool> releasing_ = false;  // it gives the fixed part back

  // Guards what follows; never held while the engine is waited for. engine_ changes under both
  // mutexes, on thread_ or after it, and goes with the last word about it: nobody else keeps it.
  mutable std::mutex mutex_;
  std::unique_ptr<Engine> engine_;
  EngineStats past_;         // of engines that are gone: steps, tokens and busy
  std::string fixed_error_;  // of the newest epoch

  std::mutex source_mutex_;  // one SetSource at a time, and none while an engine comes or goes
  std::shared_ptr<WeightSource> source_;

  std::thread engine_thread_;
  Executor thread_;
};

}  // namespace switchyard::worker
