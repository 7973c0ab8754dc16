#include "worker/engine_host.h"

#include <pthread.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::worker {

EngineHost::EngineHost(const OpenedModel& model, Device& device, kernels::Ops& ops,
                       const Clock& clock, Requests& requests, Outbox& outbox)
    : model_(model),
      device_(device),
      ops_(ops),
      clock_(clock),
      requests_(requests),
      outbox_(outbox),
      thread_(1, "lease") {}

void EngineHost::Stop() {
  thread_.Stop();
  DestroyEngine();
}

void EngineHost::SetLease(const v1::SetLease& command) {
  thread_.Post([this, command] { RunLease(command); });
}

void EngineHost::RunLease(const v1::SetLease& command) {
  epoch_ = command.epoch();
  releasing_ = command.lease().fixed_bytes() == 0;
  if (releasing_) return RunWithoutFixed(command);

  const uint64_t needed = model_.plan.fixed_bytes();
  const uint64_t granted = command.lease().fixed_bytes();
  std::string error;
  if (granted < needed) {
    error = absl::StrCat("the fixed part needs ", needed, " bytes (", HumanBytes(needed),
                         "), granted are ", granted);
  } else if (engine_ == nullptr) {
    absl::Status created = CreateEngine();
    if (!created.ok()) error = absl::StrCat("creating the engine: ", created.message());
  }
  // Without an engine nothing else can be held; with one, the other parts follow the lease.
  if (engine_ == nullptr) return Tell(Settled(command.epoch(), error));
  {
    std::lock_guard lock(mutex_);
    fixed_error_ = error;
  }
  Grow(command);
}

void EngineHost::Grow(const v1::SetLease& command) {
  LeaseTarget target;
  target.epoch = command.epoch();
  target.weight_bytes = command.lease().weight_bytes();
  target.kv_bytes = command.lease().kv_bytes();
  target.pause = command.in_flight() == v1::SetLease::PAUSE;
  target.finish = command.in_flight() == v1::SetLease::FINISH;
  target.host_kv_bytes = command.host_kv_bytes();
  engine_->SetLease(target);
}

void EngineHost::RunWithoutFixed(const v1::SetLease& command) {
  if (engine_ == nullptr) return Tell(Settled(command.epoch(), ""));
  v1::SetLease nothing = command;
  nothing.clear_lease();
  Grow(nothing);  // OnLease sees it settled and asks for FinishRelease
}

// The engine holds no weights and no KV any more; its own buffers go now unless they are in use.
void EngineHost::FinishRelease(v1::LeaseStatus status) {
  if (status.epoch() != epoch_ || !releasing_ || engine_ == nullptr) return;
  const uint32_t sequences = status.running() + status.paused() + status.waiting();
  if (requests_.Detach()) {
    DestroyEngine();
    status = Settled(status.epoch(), status.error());
  } else {
    status.set_error(absl::StrCat("the fixed part stays: ", sequences, " sequences are in flight"));
    status.set_settled(true);
  }
  Tell(std::move(status));
}

absl::Status EngineHost::CreateEngine() {
  std::lock_guard one_at_a_time(source_mutex_);
  ASSIGN_OR_RETURN(
      std::unique_ptr<Engine> created,
      Engine::Create(model_.arch, model_.image, model_.limits, device_, ops_, clock_, *this));
  {
    std::lock_guard lock(mutex_);
    engine_ = std::move(created);
  }
  engine_thread_ = std::thread([engine = engine_.get()] {
    ::pthread_setname_np(::pthread_self(), "engine");  // of another thread, the sandbox forbids it
    engine->Run();
  });
  if (source_ != nullptr) engine_->SetSource(source_);
  requests_.Attach(engine_.get());
  return absl::OkStatus();
}

void EngineHost::DestroyEngine() {
  std::lock_guard one_at_a_time(source_mutex_);
  if (engine_ == nullptr) return;
  engine_->Stop();
  engine_thread_.join();
  std::unique_ptr<Engine> gone;
  std::lock_guard lock(mutex_);
  const EngineStats stats = engine_->Stats();
  past_.steps += stats.steps;
  past_.tokens += stats.tokens;
  past_.busy += stats.busy;
  gone = std::move(engine_);
}

void EngineHost::SetSource(std::shared_ptr<WeightSource> source) {
  std::lock_guard one_at_a_time(source_mutex_);
  source_ = source;
  if (engine_ != nullptr) engine_->SetSource(std::move(source));
}

EngineStats EngineHost::Stats() const {
  std::lock_guard lock(mutex_);
  EngineStats stats = engine_ != nullptr ? engine_->Stats() : EngineStats{};
  stats.steps += past_.steps;
  stats.tokens += past_.tokens;
  stats.busy += past_.busy;
  if (engine_ == nullptr) stats.waiting = static_cast<int32_t>(requests_.waiting());
  return stats;
}

void EngineHost::OnEvents(std::vector<SequenceEvent> events) {
  requests_.OnEvents(events, Stats());
}

void EngineHost::OnLease(const LeaseReport& report) {
  v1::LeaseStatus status;
  status.set_epoch(report.epoch);
  v1::LeaseBytes& held = *status.mutable_held();
  held.set_fixed_bytes(model_.plan.fixed_bytes());
  held.set_weight_bytes(report.weight_bytes);
  held.set_kv_bytes(report.kv_bytes);
  status.set_settled(report.settled);
  status.set_error(report.error);
  status.set_host_short(report.host_short);
  status.set_host_kv_bytes(report.host_kv_bytes);
  status.set_running(static_cast<uint32_t>(report.running));
  status.set_paused(static_cast<uint32_t>(report.paused));
  status.set_waiting(static_cast<uint32_t>(report.waiting));
  if (report.settled && releasing_ && report.epoch == epoch_) {
    thread_.Post([this, status] { FinishRelease(status); });
    status.set_settled(false);
  } else if (report.settled && status.error().empty()) {
    std::lock_guard lock(mutex_);
    status.set_error(fixed_error_);
  }
  Tell(std::move(status));
}

v1::LeaseStatus EngineHost::Settled(uint64_t epoch, const std::string& error) const {
  v1::LeaseStatus status;
  status.set_epoch(epoch);
  status.mutable_held();
  status.set_settled(true);
  status.set_error(error);
  status.set_waiting(requests_.waiting());
  return status;
}

void EngineHost::Tell(v1::LeaseStatus status) {
  v1::FromWorker message;
  *message.mutable_lease() = std::move(status);
  outbox_.Send(std::move(message));
}

}  // namespace switchyard::worker
