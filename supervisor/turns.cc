#include "supervisor/turns.h"

#include <algorithm>
#include <functional>
#include <tuple>

namespace switchyard::supervisor {
namespace {

bool EarlierDue(const Demand& a, const Demand& b) {
  const Nanos x = a.due == 0 ? kNever : a.due + a.swap + a.turn;
  const Nanos y = b.due == 0 ? kNever : b.due + b.swap + b.turn;
  return std::tie(x, a.since, a.model) < std::tie(y, b.since, b.model);
}

// Higher priority; then what relieves more waiting for each second of swapping.
bool Preferred(const Demand& a, const Demand& b) {
  if (a.priority != b.priority) return a.priority > b.priority;
  const double x = static_cast<double>(a.waited) * static_cast<double>(b.swap + kMillisecond);
  const double y = static_cast<double>(b.waited) * static_cast<double>(a.swap + kMillisecond);
  if (x != y) return x > y;
  return std::tie(a.since, a.model) < std::tie(b.since, b.model);
}

using Iterator = std::vector<Demand>::iterator;

// Whether a switch would make one of the requests of [begin, end), in the order of due, late that
// were there before it.
bool MakesLate(const Demand& operators, Iterator begin, Iterator end, Nanos release, Nanos now) {
  const Nanos takes = TurnTime(operators, release);
  Nanos before = 0;  // what those that are due earlier take
  return std::any_of(begin, end, [&](const Demand& d) {
    const Nanos latest = d.due - release - before;
    before += TurnTime(d, release);
    return d.due > 0 && d.asked < operators.asked && latest - now < takes;
  });
}

// Orders the prepared requests of [begin, end), which are in the order of due. `at_once`: a switch
// is held for their sake.
void RankRequests(Iterator begin, Iterator end, bool at_once, Nanos release, Nanos now) {
  if (begin == end) return;
  Nanos before = 0;       // what those that are due earlier take
  Nanos latest = kNever;  // min L(k) over those that are due earlier
  for (Iterator it = begin; it != end; ++it) {
    const Nanos takes = TurnTime(*it, release);
    it->held = latest != kNever && latest - now < takes;
    if (it->due > 0) latest = std::min(latest, it->due - release - before);
    before += takes;
  }
  if (at_once) latest = std::min(latest, now);
  if (latest != kNever) begin->urgent_at = std::max<Nanos>(latest, 1);
  if (latest <= now) return;  // in the order of due
  std::stable_sort(begin, end, [](const Demand& a, const Demand& b) {
    return a.held != b.held ? b.held : !a.held && Preferred(a, b);
  });
}

}  // namespace

bool RanksBefore(const Demand& a, const Demand& b) {
  auto rank = [](const Demand& d) {
    return std::make_tuple(static_cast<int>(d.kind),
                           d.kind == DemandKind::kRequests ? -d.priority : 0, d.since);
  };
  return std::make_tuple(rank(a), std::cref(a.model)) <
         std::make_tuple(rank(b), std::cref(b.model));
}

Nanos SwapTime(uint64_t bytes, double bytes_per_second) {
  const double seconds = static_cast<double>(bytes) / std::max(bytes_per_second, 1.0);
  return static_cast<Nanos>(std::min(seconds * kSecond, static_cast<double>(kLongestSwap)));
}

Nanos LeastTurn(Nanos swap) { return std::max(kLeastTurn, kTurnPerSwap * swap); }

void RankDemands(std::vector<Demand>& demands, Nanos release, Nanos now) {
  std::sort(demands.begin(), demands.end(), RanksBefore);
  const auto requests = std::find_if(demands.begin(), demands.end(),
                                     [](const Demand& d) { return d.kind != DemandKind::kSwitch; });
  const auto background = std::find_if(
      requests, demands.end(), [](const Demand& d) { return d.kind == DemandKind::kBackground; });
  // Those that are not prepared cannot use the time: they rank last, as they are.
  const auto unprepared =
      std::stable_partition(requests, background, [](const Demand& d) { return d.prepared; });
  std::sort(requests, unprepared, EarlierDue);
  const auto held = std::find_if(demands.begin(), requests, [&](const Demand& d) {
    return d.prepared && MakesLate(d, requests, unprepared, release, now);
  });
  std::for_each(held, requests, [](Demand& d) { d.held = true; });
  RankRequests(requests, unprepared, held != requests, release, now);
  std::rotate(held, requests, unprepared);
}

Nanos TurnTime(const Demand& demand, Nanos release) {
  return demand.kind == DemandKind::kBackground ? 0 : release + demand.swap + demand.turn;
}

Nanos WaitBound(Nanos max_wait, Nanos present, Nanos release, Nanos others) {
  return std::max(max_wait, std::max<Nanos>(present, 0) + release + others);
}

Nanos Slack(const Demand& chosen, const std::vector<Demand>& demands, Nanos release, Nanos now) {
  std::vector<const Demand*> switches;
  std::vector<const Demand*> others;
  for (const Demand& demand : demands) {
    if (!demand.prepared || demand.model == chosen.model) continue;
    (demand.kind == DemandKind::kSwitch ? switches : others).push_back(&demand);
  }
  std::sort(switches.begin(), switches.end(),
            [](const Demand* a, const Demand* b) { return RanksBefore(*a, *b); });
  std::sort(others.begin(), others.end(),
            [](const Demand* a, const Demand* b) { return EarlierDue(*a, *b); });
  const Nanos takes = TurnTime(chosen, release);
  Nanos slack = chosen.due == 0 ? kNever : std::max<Nanos>(chosen.due - release - now, 0);
  const auto keep = [&](const Demand& other, Nanos before) {
    const Nanos spare = other.due - release - takes - before - now;
    if (other.due > 0 && spare >= 0) slack = std::min(slack, spare);  // else it is late anyway
  };
  Nanos before = 0;
  for (const Demand* operators : switches) {
    keep(*operators, before);
    before += TurnTime(*operators, release);
  }
  before = 0;
  for (const Demand* other : others) {
    Nanos first = 0;  // of switches, which may only have what it can spare if they came later
    for (const Demand* operators : switches) {
      if (operators->asked <= other->asked) first += TurnTime(*operators, release);
    }
    keep(*other, first + before);
    before += TurnTime(*other, release);
  }
  return slack;
}

Nanos GivesWayAt(const Work& work, const Demand& demand, Nanos now) {
  const bool operators = demand.kind == DemandKind::kSwitch;
  if (work.requests == 0) {
    // The operator who switched to it is about to ask it something.
    return work.switched && !operators ? work.turn_until : now;
  }
  if (work.turn_until > now || operators) return work.turn_until;
  if (demand.priority > work.priority) return now;
  const Nanos urgent = demand.urgent_at == 0 ? kNever : demand.urgent_at;
  if (demand.priority < work.priority) return urgent;
  const double cost = 2.0 * static_cast<double>(demand.swap) * static_cast<double>(work.requests);
  const double missing = cost - static_cast<double>(demand.waited);
  if (demand.kind == DemandKind::kBackground) return kNever;
  if (missing <= 0) return now;
  if (demand.requests == 0) return urgent;
  const double ripens = missing / static_cast<double>(demand.requests);
  // A nanosecond more, so that rounding does not make it ask again just before.
  return std::min(urgent, now + 1 + static_cast<Nanos>(std::min(ripens, 1e18)));
}

bool InLeastTurn(const Work& work, const Demand& demand, Nanos now) {
  const bool has = work.requests > 0 || (work.switched && demand.kind != DemandKind::kSwitch);
  return has && work.turn_until > now;
}

}  // namespace switchyard::supervisor
