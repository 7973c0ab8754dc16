#include "supervisor/scheduler.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/human.h"
#include "supervisor/arithmetic.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kSoon = 5 * kSecond;
constexpr Nanos kShortSwap = 5 * kSecond;

uint64_t Above(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// Bytes that `target` asks for beyond what is charged already.
uint64_t Growth(const Bytes& target, const Bytes& charge) {
  return Above(target.fixed, charge.fixed) + Above(target.weights, charge.weights) +
         Above(target.kv, charge.kv);
}

// Bytes of `model` that come back without our asking again.
uint64_t Coming(const SchedulerModel& model) {
  if (model.quarantined) return 0;
  if (model.ending) return model.charge.total();
  return model.settled ? 0 : Above(model.charge.total(), model.tenant.lease.total());
}

// Bytes of `model` that nothing brings back while pins and quarantine stay as they are.
uint64_t Kept(const SchedulerModel& model) {
  if (model.quarantined) return model.charge.total();
  if (model.ending) return 0;
  return Above(model.charge.total(), Coming(model) + Reclaimable(model.tenant));
}

// Those that have, or are about to give back, something: nobody else matters to the others. Found
// once for all demands, since on a device of a hundred models most wait and hold nothing.
struct Holders {
  std::vector<const SchedulerModel*> models;
  uint64_t coming = 0;
  uint64_t kept = 0;  // while pins and quarantine stay as they are
};

Holders HoldersOf(const std::vector<SchedulerModel>& models) {
  Holders holders;
  for (const SchedulerModel& model : models) {
    if (model.charge.total() == 0 && model.settled && !model.ending) continue;
    holders.models.push_back(&model);
    holders.coming += Coming(model);
    holders.kept += Kept(model);
  }
  return holders;
}

std::string Arithmetic(const SchedulerDevice& device, const Holders& all,
                       const SchedulerModel& self) {
  const std::string& name = self.tenant.model;
  std::vector<std::string> holders;
  std::vector<std::string> pinned;
  for (const SchedulerModel* each : all.models) {
    const SchedulerModel& model = *each;
    if (model.tenant.model == name || model.charge.total() == 0) continue;
    if (model.quarantined) {
      holders.push_back(absl::StrCat(model.tenant.model, " (its worker cannot be ended) ",
                                     HumanBytes(model.charge.total())));
    } else if (model.tenant.pinned) {
      pinned.push_back(model.tenant.model);
      holders.push_back(
          absl::StrCat(model.tenant.model, " (pinned) ", HumanBytes(model.charge.total())));
    }
  }
  return absl::StrCat(
      name, " needs ", SmallestLeaseText(self.tenant.needs, device.capacity), ", but ", device.name,
      " has ", HumanBytes(device.capacity, self.tenant.needs.Smallest().total()), ": ",
      HumanBytes(device.reserve), " reserve, ", HumanBytes(device.foreign),
      " used by other programs",
      holders.empty() ? "" : absl::StrCat(", kept by ", absl::StrJoin(holders, ", ")),
      pinned.empty() ? "" : absl::StrCat(". Unpin ", absl::StrJoin(pinned, " or ")));
}

// Whether `self` could come in, were every other model idle and at rest, and kept as much as that.
bool FitsBeside(const SchedulerDevice& device, const SchedulerModel& self,
                uint64_t kept_by_others) {
  // What it has and keeps counts, not what is on its way back.
  const Bytes smallest = self.tenant.needs.Smallest();
  const Bytes whole = self.quarantined ? Max(smallest, self.charge)
                      : self.ending    ? smallest
                      : self.settled   ? Max(smallest, self.charge)
                                       : Max(smallest, self.tenant.lease);
  return whole.total() + kept_by_others <= Above(device.capacity, device.reserve + device.foreign);
}

bool EverFits(const SchedulerDevice& device, const SchedulerModel& self, uint64_t kept_by_all) {
  return FitsBeside(device, self, kept_by_all - Kept(self));
}

bool Taboo(const SchedulerModel& model, const Demand& demand, Nanos now) {
  const Tenant& tenant = model.tenant;
  const bool spared =
      demand.failing && demand.kind != DemandKind::kSwitch && tenant.needs.Whole(tenant.lease);
  return !model.settled || GivesWayAt(model.work, demand, now) > now || spared ||
         (demand.kind == DemandKind::kBackground && tenant.active);
}

// Everyone but the model that comes in, as eviction may use them now; nobody, if that cannot be
// enough.
std::vector<Tenant> Candidates(const Holders& holders, const Demand& demand, uint64_t needed,
                               Nanos now) {
  std::vector<const SchedulerModel*> others;
  uint64_t most = 0;
  for (const SchedulerModel* model : holders.models) {
    if (model->tenant.model == demand.model || model->ending || model->quarantined) continue;
    if (Taboo(*model, demand, now)) continue;
    others.push_back(model);
    most += Reclaimable(model->tenant);
  }
  std::vector<Tenant> tenants;
  if (most < needed) return tenants;
  for (const SchedulerModel* model : others) {
    tenants.push_back(model->tenant);
    tenants.back().taboo = false;
  }
  return tenants;
}

// The earlier of two times, where 0 is never.
Nanos Earlier(Nanos a, Nanos b) { return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b); }

// Not enough now. 1. Never enough: refuse. 2. Someone's least turn ends or bytes settle: wait for
// it. 3. Others' work weighs more, as yet. 4. Else another model must have its turn first.
SwapPlan NotNow(const SchedulerDevice& device, const Holders& holders, const Demand& demand,
                const SchedulerModel& self, Nanos now) {
  SwapPlan plan;
  if (!EverFits(device, self, holders.kept)) {  // 1
    plan.verdict = Verdict::kRefuse;
    plan.reason = Arithmetic(device, holders, self);
    return plan;
  }
  plan.verdict = Verdict::kBlocked;  // 4
  if (demand.kind == DemandKind::kBackground) return plan;
  for (const SchedulerModel* model : holders.models) {
    if (model->tenant.model == demand.model || model->quarantined) continue;
    const Nanos gives_way = GivesWayAt(model->work, demand, now);
    const bool moves = !model->settled || model->ending;
    if (!moves && gives_way <= now) {
      plan.outlasted |= model->tenant.stays || model->tenant.worker_stays;
      continue;
    }
    const bool waits = moves || InLeastTurn(model->work, demand, now);
    if (waits) plan.verdict = Verdict::kWait;                                         // 2
    if (!waits && plan.verdict == Verdict::kBlocked) plan.verdict = Verdict::kLater;  // 3
    if (gives_way > now && gives_way < kNever) {
      plan.recheck_at = Earlier(plan.recheck_at, gives_way);
    }
  }
  return plan;
}

bool MayGrowPool(const SchedulerModel& model) {
  return model.starved && model.settled && !model.ending && !model.quarantined;
}

// What idle models have that a pool may take: spare KV of those that stay whole, and the weights of
// those that are not, which only make their return shorter. No worker ends for it that has had
// work.
std::vector<Tenant> Leavings(const std::vector<SchedulerModel>& models) {
  std::vector<Tenant> tenants;
  for (const SchedulerModel& model : models) {
    if (!model.settled || model.ending || model.quarantined || model.starved) continue;
    if (model.tenant.active || model.tenant.pinned) continue;
    tenants.push_back(model.tenant);
    tenants.back().worker_stays = !model.tenant.unused;
    tenants.back().stays = model.tenant.needs.Whole(model.tenant.lease);
  }
  return tenants;
}

SwapPlan Plan(const SchedulerDevice& device, const Holders& holders, const SchedulerModel& self,
              const Demand& demand, Nanos now) {
  SwapPlan plan;
  const uint64_t growth = Growth(self.tenant.needs.Smallest(), self.charge);
  const uint64_t free = device.over > 0 ? 0 : device.free;
  // What comes back first pays for what strangers took.
  const uint64_t coming = holders.coming - Coming(self);
  const uint64_t expected = free + Above(coming, device.over);
  const uint64_t debt = Above(device.over, coming);
  if (growth + debt <= expected) return plan;
  const uint64_t needed = growth + debt - expected;
  Eviction eviction = ChooseVictims(Candidates(holders, demand, needed, now), needed, now);
  if (!eviction.enough) return NotNow(device, holders, demand, self, now);
  plan.shrinks = std::move(eviction.shrinks);
  return plan;
}

}  // namespace

bool FillEndsSoon(uint64_t done, uint64_t total, Nanos elapsed) {
  if (done == 0) return false;
  const double left = static_cast<double>(Above(total, done));
  return static_cast<double>(elapsed) * left / static_cast<double>(done) <= kSoon;
}

SwapPlan PlanSwap(const SchedulerDevice& device, const std::vector<SchedulerModel>& models,
                  const Demand& demand, Nanos now) {
  auto self = std::find_if(models.begin(), models.end(),
                           [&](const SchedulerModel& m) { return m.tenant.model == demand.model; });
  if (self == models.end()) return SwapPlan();
  return Plan(device, HoldersOf(models), *self, demand, now);
}

std::vector<bool> HaveRoom(const SchedulerDevice& device,
                           const std::vector<SchedulerModel>& models) {
  const Holders holders = HoldersOf(models);
  std::vector<bool> fits;
  fits.reserve(models.size());
  for (const SchedulerModel& model : models) {
    fits.push_back(EverFits(device, model, holders.kept));
  }
  return fits;
}

bool HasRoomBesideResidents(const SchedulerDevice& device,
                            const std::vector<SchedulerModel>& models, const std::string& name,
                            const std::string& comes_in) {
  const SchedulerModel* self = nullptr;
  uint64_t kept = 0;
  for (const SchedulerModel& model : models) {
    const Tenant& tenant = model.tenant;
    if (tenant.model == name) {
      self = &model;
    } else if (tenant.model == comes_in) {
      kept += Max(tenant.needs.Smallest(), model.charge).total();
    } else if (tenant.needs.Whole(tenant.lease) && !model.ending) {
      kept += Above(model.charge.total(), Coming(model));
    } else {
      kept += Kept(model);
    }
  }
  return self == nullptr || FitsBeside(device, *self, kept);
}

std::string NoRoomReason(const SchedulerDevice& device, const std::vector<SchedulerModel>& models,
                         const SchedulerModel& model) {
  return Arithmetic(device, HoldersOf(models), model);
}

std::vector<Refused> Refusals(const SchedulerDevice& device,
                              const std::vector<SchedulerModel>& models,
                              const std::vector<Demand>& demands) {
  const Holders holders = HoldersOf(models);
  std::vector<Refused> refusals;
  for (const SchedulerModel& model : models) {
    if (EverFits(device, model, holders.kept)) continue;
    const bool wanted = std::any_of(demands.begin(), demands.end(),
                                    [&](const Demand& d) { return d.model == model.tenant.model; });
    if (!wanted && !model.asked) continue;
    refusals.push_back({model.tenant.model, Arithmetic(device, holders, model)});
  }
  return refusals;
}

Decision Decide(const SchedulerDevice& device, const std::vector<SchedulerModel>& models,
                std::vector<Demand> demands, Nanos now) {
  RankDemands(demands, kRelease, now);
  const Holders holders = HoldersOf(models);
  std::unordered_map<std::string_view, const SchedulerModel*> by_name;
  for (const SchedulerModel& model : models) by_name[model.tenant.model] = &model;
  Decision decision;
  bool unready_switch = false;
  bool waits = false;          // some request, whose turn has not come
  bool first_blocked = false;  // then whoever is held for its sake may as well go
  for (Demand& demand : demands) {
    // A load for a pin cannot be taken back, and nobody comes in as long as it takes.
    waits |= demand.kind == DemandKind::kRequests;
    if (waits && demand.kind == DemandKind::kBackground && demand.swap > kShortSwap) break;
    // Switches keep their order, also while one gets ready, which may mean reading a large model
    // from disk; requests go on meanwhile. Only one that another model's turn blocks is overtaken.
    if (demand.kind == DemandKind::kSwitch && unready_switch) continue;
    const auto self = by_name.find(demand.model);
    if (self == by_name.end()) continue;
    SwapPlan plan = Plan(device, holders, *self->second, demand, now);
    const bool blocked = plan.verdict == Verdict::kBlocked;
    if (blocked) decision.blocked.push_back(demand.model);
    if (blocked && plan.outlasted && demand.kind == DemandKind::kSwitch) {
      decision.refused.push_back(demand.model);
    }
    if (!demand.prepared) {
      unready_switch |= demand.kind == DemandKind::kSwitch && !blocked;
      continue;
    }
    if (demand.held && !first_blocked && (plan.verdict != Verdict::kGo || !plan.shrinks.empty())) {
      continue;
    }
    first_blocked |= blocked;
    decision.recheck_at = Earlier(decision.recheck_at, plan.recheck_at);
    if (plan.verdict == Verdict::kWait) return decision;
    if (plan.verdict == Verdict::kGo) {
      const Nanos slack = Slack(demand, demands, kRelease, now);
      decision.start = Decision::Start{std::move(demand), std::move(plan.shrinks), slack};
      return decision;
    }
  }
  return decision;
}

std::optional<Bytes> GrowTarget(const Needs& needs, const Bytes& charge, uint64_t free) {
  Bytes target = Max(needs.Smallest(), charge);
  const uint64_t growth = Growth(target, charge);
  if (growth > free) return std::nullopt;
  const uint64_t granule = std::max<uint64_t>(needs.kv_granule, 1);
  const uint64_t extra = std::min(free - growth, Above(needs.kv_useful, target.kv));
  target.kv += extra / granule * granule;
  return target;
}

std::vector<PoolGrowth> PlanPools(const SchedulerDevice& device,
                                  const std::vector<SchedulerModel>& models) {
  std::vector<PoolGrowth> growths;
  uint64_t free = device.over > 0 ? 0 : device.free;
  for (const SchedulerModel& model : models) {
    if (!MayGrowPool(model)) continue;
    const std::optional<Bytes> target = GrowTarget(model.tenant.needs, model.charge, free);
    if (!target || target->kv <= model.tenant.lease.kv) continue;
    free -= target->kv - model.tenant.lease.kv;
    growths.push_back({model.tenant.model, *target});
  }
  return growths;
}

std::vector<Shrink> PlanPoolRoom(const SchedulerDevice& device,
                                 const std::vector<SchedulerModel>& models, Nanos now) {
  if (device.over > 0) return {};
  uint64_t wanted = 0, have = device.free;
  for (const SchedulerModel& model : models) {
    have += Coming(model);
    if (!MayGrowPool(model)) continue;
    const uint64_t kv = model.charge.kv;
    wanted += std::min(Above(model.tenant.needs.kv_useful, kv), kv);
  }
  if (have >= wanted) return {};
  return ChooseVictims(Leavings(models), wanted - have, now).shrinks;
}

std::vector<Shrink> PlanRelief(const SchedulerDevice& device,
                               const std::vector<SchedulerModel>& models,
                               const std::string& comes_in, Nanos now) {
  if (device.over == 0) return {};
  uint64_t coming = 0;
  std::vector<Tenant> tenants;
  for (const SchedulerModel& model : models) {
    coming += Coming(model);
    if (model.ending || model.quarantined) continue;
    tenants.push_back(model.tenant);
    tenants.back().taboo = !model.settled || model.tenant.model == comes_in;
  }
  const uint64_t needed = Above(device.over, coming);
  if (needed == 0) return {};
  return ChooseVictims(std::move(tenants), needed, now).shrinks;
}

}  // namespace switchyard::supervisor
