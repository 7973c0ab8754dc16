// What a drain waits for, and for how long beyond its time it is worth that.

#include <algorithm>

#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kLookAgain = kSecond;  // at a drain that has been given more time

}  // namespace

// Those that the lease must wait for: where the worker will end, the paused ones as well.
size_t Router::Impl::Unfinished(const ModelRecord& model) const {
  if (!model.lease.ends_worker) return Running(model);
  const size_t begun = model.running + model.paused;
  const size_t may_have = model.running + model.waiting.size();
  return std::max<size_t>(begun,
                          std::min<size_t>(model.worker.running + model.worker.paused, may_have));
}

// Which they are. Those in their prompts are the first of the accepted ones, as the worker takes
// them.
std::set<RequestId> Router::Impl::WhatDrains(const ModelRecord& model) const {
  std::set<RequestId> ids;
  for (const RequestId id : model.requests) {
    const Stage stage = state_.requests.at(id)->stage;
    const bool begun =
        stage == Stage::kRunning || (stage == Stage::kPaused && model.lease.ends_worker);
    if (begun) ids.insert(id);
  }
  const size_t unfinished = Unfinished(model);
  for (const auto& [priority, since, id] : model.waiting) {
    if (ids.size() >= unfinished) break;
    if (state_.requests.at(id)->stage == Stage::kAccepted) ids.insert(id);
  }
  return ids;
}

// How long those take that have begun, if all of them make as many tokens as the one that may make
// most, at the pace of this drain.
Nanos Router::Impl::TimeToFinish(const ModelRecord& model) const {
  const uint64_t made = model.tokens - model.lease.tokens_before;
  if (made == 0) return kNever;
  const std::set<RequestId> ids = WhatDrains(model);
  uint64_t most = 0;
  for (const RequestId id : ids) most = std::max(most, state_.requests.at(id)->tokens_left);
  const double left = static_cast<double>(most) * static_cast<double>(ids.size());
  const double pace = static_cast<double>(made) / static_cast<double>(Now() - model.lease.since);
  return static_cast<Nanos>(std::min(left / pace, 1e18));
}

// The drain is over, and what is left cannot be paused. When it is to be looked at again, if it
// will have finished before anybody's bound is over, those of its own model's newcomers included;
// else 0. To give the swap up would be for nothing then: as many others would have begun until
// there is another chance.
Nanos Router::Impl::MoreTime(const ModelRecord& model) const {
  const std::optional<Swap>& swap = DeviceOf(model).swap;
  if (!swap || swap->victims.count(model.name()) == 0) return 0;
  const std::vector<Demand> demands = Demands(model.device);
  const auto wanted = std::find_if(demands.begin(), demands.end(),
                                   [&](const Demand& each) { return each.model == swap->model; });
  if (wanted == demands.end() || wanted->kind == DemandKind::kBackground) return 0;
  const Nanos longest = model.lease.since + MaxWait(*Find(swap->model)) - Now();
  Nanos spare = std::min(Slack(*wanted, demands, kRelease, Now()), longest);
  // Its newcomers are no demand yet: nothing is sent to a worker that is about to end.
  if (const std::optional<Nanos> due = model.clock.meter.FirstDue(model.ages, Now())) {
    spare = std::min(spare, *due - kRelease - TurnTime(*wanted, kRelease) - Now());
  }
  return TimeToFinish(model) <= spare ? std::min(spare, kLookAgain) : 0;
}

}  // namespace switchyard::supervisor
