// Masters: none -> filling -> complete -> dropping -> none. A complete one outlives its worker,
// and, where a service manager keeps its descriptor, the supervisor: the next one adopts it. The
// ring of a model that is streamed goes the same way; complete says that its image can be read.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/available_memory.h"
#include "common/human.h"
#include "common/log.h"
#include "supervisor/router_impl.h"
#include "supervisor/signs_of_life.h"

namespace switchyard::supervisor {

constexpr Nanos kMasterStuck = 120 * kSecond;  // without progress
using MasterPhase = MasterSlot::Phase;

bool Router::Impl::WantsMaster(const ModelRecord& model) const {
  if (!Ready(model) || model.leave != Leave::kNo || model.master.phase != MasterPhase::kNone ||
      LoadsLater(model)) {
    return false;
  }
  if (!model.master.waiting.empty()) return true;
  // All chunks are on the device: only the pool is missing.
  return DemandOf(model).has_value() && LeaseOf(model).held.weights < model.needs.image;
}

// First what somebody waits for, then one at a time in the background, pinned models first.
void Router::Impl::PumpMasters() {
  std::vector<ModelRecord*> wanted;
  for (const std::string& name : state_.order) {
    ModelRecord& model = *Find(name);
    if (WantsMaster(model)) wanted.push_back(&model);
  }
  std::stable_sort(wanted.begin(), wanted.end(), [this](ModelRecord* a, ModelRecord* b) {
    if (a->blocked != b->blocked) return b->blocked;
    const std::optional<Demand> x = DemandOf(*a);
    const std::optional<Demand> y = DemandOf(*b);
    return x && y ? RanksBefore(*x, *y) : x.has_value() && !y.has_value();
  });
  // Room that is being made for one is not taken by those behind it.
  for (ModelRecord* model : wanted) {
    if (!FillMaster(*model, true)) return;
  }
  for (const auto& [name, model] : state_.models) {
    if (model->master.phase == MasterPhase::kFilling) return;
  }
  for (bool pinned : {true, false}) {
    for (const std::string& name : state_.order) {
      ModelRecord& model = *Find(name);
      if (!model.master.prefetch || model.pinned != pinned || model.leave != Leave::kNo) continue;
      if (model.worker.phase == Phase::kStarting) return;  // keeps the order
      if (!Ready(model) || !model.misfit.ok() || LoadsLater(model)) continue;
      model.master.prefetch = false;
      if (model.master.phase != MasterPhase::kNone) continue;
      FillMaster(model, false);
      if (model.master.phase == MasterPhase::kFilling) return;
      model.master.prefetch = model.failures.starved > 0 && LoadsLater(model);  // until it can be
    }
  }
}

// False if there is no room yet.
bool Router::Impl::FillMaster(ModelRecord& model, bool may_drop) {
  const uint64_t bytes = model.host.bytes;
  if (state_.host.free() < bytes && (!may_drop || !MakeHostRoom(model, bytes))) return false;
  absl::StatusOr<uint64_t> id = ports_.masters->Create(model.name(), bytes);
  if (!id.ok()) {
    const absl::Status why(
        id.status().code(),
        absl::StrCat("no memory for the master of ", model.name(), ": ", id.status().message()));
    FinishPrefetches(model, why);
    IsStarved(why) ? MasterStarved(model, why) : LoadFailed(model, why);
    return true;
  }
  model.failures.starved = 0;
  state_.host.SetMaster(model.name(), bytes);
  model.master.phase = MasterPhase::kFilling;
  model.master.id = *id;
  model.master.done = 0;
  model.master.filling_since = Now();
  model.master.soon = false;
  model.master.prefetch = false;
  SendMaster(model);
  dirty_ = true;
  return true;
}

// Drops the masters worth least (eviction.h) until `bytes` fit. True if they fit now. A master that
// is wanted itself stays, unless its own model has to wait for another's turn anyway, and this one
// has not, or comes before it: two that wait do not take it from each other in turns.
bool Router::Impl::MakeHostRoom(const ModelRecord& model, uint64_t bytes) {
  std::vector<SpareMaster> droppable;
  const uint64_t expected = state_.host.free() + HostRoomComing();
  const std::optional<Demand> ours = DemandOf(model);
  for (const auto& [name, other] : state_.models) {
    const DeviceSlot& device = DeviceOf(*other);
    const std::optional<Demand> demand = DemandOf(*other);
    const bool behind = ours && demand && demand->kind == DemandKind::kSwitch &&
                        ours->kind == DemandKind::kSwitch && RanksBefore(*ours, *demand);
    const bool first = !model.blocked || (ours && demand && RanksBefore(*ours, *demand));
    const bool used = (device.swap && device.swap->model == name) ||
                      (demand && !behind && !(other->blocked && first)) ||
                      !other->master.waiting.empty() || other->lease.motion == Motion::kGrow ||
                      (other->worker.phase == Phase::kReady && !other->master.attached);
    if (other.get() == &model || other->master.phase != MasterPhase::kComplete || used) continue;
    droppable.push_back({name, state_.host.master(name), other->last_use,
                         1e9 / other->master.fill.bytes_per_second(), other->pinned});
  }
  const uint64_t needed = bytes - std::min(bytes, expected);
  for (const std::string& name : ChooseMasters(std::move(droppable), needed, Now())) {
    DropMaster(*Find(name));
  }
  return state_.host.free() >= bytes;
}

// Of masters that are on their way out, or whose memory is being freed.
uint64_t Router::Impl::HostRoomComing() const {
  uint64_t coming = state_.host.closing();
  for (const auto& [name, model] : state_.models) {
    if (model->master.phase == MasterPhase::kDropping) coming += state_.host.master(name);
  }
  return coming;
}

// As if a worker of ours had filled it, and been lost.
void Router::Impl::Adopt(const std::string& name, uint64_t master_id) {
  ModelRecord& model = *Find(name);
  MasterSlot& master = model.master;
  state_.host.SetMaster(name, model.host.bytes);
  master.phase = MasterPhase::kComplete;
  master.id = master_id;
  master.image_key = model.entry.plan.image_key();
  master.done = model.needs.image;
  master.complete_since = Now();
  master.prefetch = false;
}

// A new worker gets the master that is there, unless it has found another checkpoint than the
// master was filled from.
void Router::Impl::AttachMaster(ModelRecord& model) {
  if (model.master.phase != MasterPhase::kComplete) return;
  if (model.master.image_key == model.worker.image_key) return SendMaster(model);
  LogWarning("the checkpoint of ", model.name(), " has changed: its master is filled again");
  DiscardMaster(model);
  model.master.prefetch = options_.prefetch_at_start;
}

// Passes the descriptor and says what to do with it: fill it, or use what another worker filled.
void Router::Impl::SendMaster(ModelRecord& model) {
  MasterSlot& master = model.master;
  if (master.sent) return;
  if (absl::Status status = model.worker.port->SendMaster(master.id); !status.ok()) {
    KillWorker(model, absl::StrCat("cannot be given its master: ", status.message()));
    return;
  }
  master.sent = true;
  v1::ToWorker message;
  message.mutable_use_master()->set_master_id(master.id);
  message.mutable_use_master()->set_bytes(model.host.bytes);
  message.mutable_use_master()->set_streamed(model.host.streamed);
  message.mutable_use_master()->set_complete(master.phase == MasterPhase::kComplete);
  Send(model, std::move(message));
  WatchMaster(model);
}

// Reading and copying go on all the time, or hang. What has an end of its own and tells nothing of
// it may take longer: an image is built for streaming, all of it is checked or unregistered.
void Router::Impl::WatchMaster(ModelRecord& model) {
  const MasterSlot& master = model.master;
  const bool gets_on = !model.host.streamed && master.phase != MasterPhase::kDropping &&
                       (master.phase != MasterPhase::kFilling || master.done < model.needs.image);
  const Nanos longest =
      gets_on ? LongestStandstill(model.failures.stuck_fills, kMasterStuck) : kMasterStuck;
  const std::string name = model.name();
  ArmTwice(model.master.watch, longest, [this, name, longest, gets_on] {
    ModelRecord& stuck = *Find(name);
    if (gets_on) ++stuck.failures.stuck_fills;
    KillUnhealthy(stuck, absl::StrCat("hung: made no progress with its master for ",
                                      longest / kSecond, " s"));
  });
}

void Router::Impl::DropMaster(ModelRecord& model) {
  LogInfo("dropping the master of ", model.name(), ", ", HumanBytes(model.host.bytes));
  if (!Ready(model)) return DiscardMaster(model);
  model.master.phase = MasterPhase::kDropping;
  v1::ToWorker message;
  message.mutable_drop_master()->set_master_id(model.master.id);
  Send(model, std::move(message));
  WatchMaster(model);
  dirty_ = true;
}

// Closes it; no live worker uses it.
void Router::Impl::DiscardMaster(ModelRecord& model) {
  if (model.master.phase != MasterPhase::kNone) ports_.masters->Close(model.master.id);
  ForgetMaster(model);
}

// The same at our end: a complete one is of use to the supervisor that comes next.
void Router::Impl::LeaveMaster(ModelRecord& model) {
  if (model.master.phase != MasterPhase::kComplete) return DiscardMaster(model);
  ports_.masters->Leave(model.master.id);
  ForgetMaster(model);
}

void Router::Impl::ForgetMaster(ModelRecord& model) {
  MasterSlot& master = model.master;
  master.watch.Clear();
  if (master.phase == MasterPhase::kNone) return;
  state_.host.Close(model.name(), master.id);
  master.phase = MasterPhase::kNone;
  master.sent = master.attached = master.soon = false;
  master.id = 0;
  master.done = 0;
  dirty_ = true;
}

// It counted until now, wanted or not: who needs its bytes has waited for them.
void Router::Impl::OnMasterFreed(uint64_t master_id) {
  state_.host.Freed(master_id);
  dirty_ = true;
  Pump();
}

void Router::Impl::OnMaster(ModelRecord& model, const v1::MasterStatus& status) {
  MasterSlot& master = model.master;
  if (master.phase == MasterPhase::kNone || status.master_id() != master.id) return;
  if (model.worker.phase != Phase::kReady) return;
  dirty_ = true;
  switch (status.state()) {
    case v1::MasterStatus::FILLING: {
      if (master.phase == MasterPhase::kDropping) return;
      const bool moved = status.bytes_done() != master.done;
      NoteFilling(model, std::min(status.bytes_done(), model.needs.image));
      if (moved) WatchMaster(model);
      return;
    }
    case v1::MasterStatus::COMPLETE:
      master.watch.Clear();
      if (master.phase == MasterPhase::kDropping) return;
      if (master.phase == MasterPhase::kFilling && !model.host.streamed) {
        master.fill.Add(model.needs.image, Now() - master.filling_since);
        ports_.masters->Keep(master.id, model.name(), model.worker.image_key);
      }
      if (master.phase == MasterPhase::kFilling) master.image_key = model.worker.image_key;
      master.complete_since = Now();
      master.phase = MasterPhase::kComplete;
      master.attached = true;
      master.soon = false;
      master.done = model.needs.image;
      if (model.lease.failed_master != master.id) model.failures.stands = false;
      model.failures.stuck_fills = 0;
      FinishPrefetches(model, absl::OkStatus());
      return;
    case v1::MasterStatus::DROPPED:
      if (master.phase == MasterPhase::kDropping) DiscardMaster(model);
      return;
    case v1::MasterStatus::FAILED: {
      const bool given_up = master.phase == MasterPhase::kDropping;
      const uint64_t id = master.id;
      DiscardMaster(model);
      if (given_up) return;  // nobody wants it any more
      const auto code = status.code() > 0 && status.code() <= 16
                            ? static_cast<absl::StatusCode>(status.code())
                            : absl::StatusCode::kInternal;
      const std::string message =
          absl::StrCat("cannot load the weights of ", model.name(), ": ", status.error());
      const absl::Status why =
          status.host_short() ? HostShort(message) : absl::Status(code, message);
      LogWarning(why.message());
      FinishPrefetches(model, why);
      return MasterFailed(model, id, why);
    }
    default:
      return;
  }
}

// Also backwards: after a cache that proves damaged, filling starts again, even when it was
// complete if there is no master to hold it.
void Router::Impl::NoteFilling(ModelRecord& model, uint64_t done) {
  MasterSlot& master = model.master;
  if (done < master.done) {
    master.filling_since = Now();
    master.soon = false;
  }
  master.done = done;
  if (model.host.streamed) {
    master.phase = MasterPhase::kFilling;
    return;  // nothing can be copied before all of it is there
  }
  master.attached = true;
  master.soon |= FillEndsSoon(done, model.needs.image, Now() - master.filling_since);
}

void Router::Impl::FinishPrefetches(ModelRecord& model, const absl::Status& status) {
  auto waiting = std::move(model.master.waiting);
  model.master.waiting.clear();
  for (auto& [id, reply] : waiting) {
    if (!status.ok()) {
      reply(status);
      continue;
    }
    v1::PrefetchReply done;
    done.set_master_bytes(model.host.bytes);
    done.set_streamed(model.host.streamed);
    reply(std::move(done));
  }
}

void Router::Impl::Prefetch(RequestId id, const std::string& name, Reply<v1::PrefetchReply> reply) {
  absl::StatusOr<ModelRecord*> found = ResolveNamed(name);
  absl::Status status = found.ok() ? Refusal(**found) : found.status();
  if (!status.ok()) return reply(std::move(status));
  ModelRecord& model = **found;
  model.master.waiting[id] = std::move(reply);
  if (model.master.phase == MasterPhase::kComplete && model.master.attached) {
    FinishPrefetches(model, absl::OkStatus());
  }
  dirty_ = true;
  Pump();
}

}  // namespace switchyard::supervisor
