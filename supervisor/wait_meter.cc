#include "supervisor/wait_meter.h"

#include <algorithm>
#include <utility>

namespace switchyard::supervisor {
namespace {

// Bounds that fall by less are the same: one that falls all the time makes no cohorts of everybody.
constexpr Nanos kSameBound = kSecond;

}  // namespace

void WaitMeter::SetRuns(bool runs, Nanos now) {
  ran_ = Reading(now);
  since_ = now;
  if (runs_ && !runs) ++ran_;  // whoever comes while it stands has not come before
  runs_ = runs;
}

void WaitMeter::BeginAnew(Nanos now) {
  anew_ = Reading(now);
  cohorts_.clear();
}

void WaitMeter::SetBound(Nanos bound, const Line& line, Nanos now) {
  const Nanos reading = Reading(now);
  const bool again = reading == std::exchange(bound_at_, reading);
  auto first = cohorts_.begin();
  while (first != cohorts_.end() && std::next(first) != cohorts_.end() &&
         (line.empty() || line.begin()->first >= std::next(first)->from)) {
    ++first;
  }
  cohorts_.erase(cohorts_.begin(), first);  // nobody is left of these
  const size_t before = cohorts_.size();
  Nanos from = reading;
  while (!cohorts_.empty() && (cohorts_.back().bound <= bound || NobodyInLast(line))) {
    from = cohorts_.back().from;
    cohorts_.pop_back();
  }
  const bool falls = !cohorts_.empty() && cohorts_.back().bound - bound >= kSameBound;
  const bool joined = cohorts_.size() < before;
  if (cohorts_.empty() || joined || (falls && !again)) cohorts_.push_back({from, bound});
}

bool WaitMeter::NobodyInLast(const Line& line) const {
  if (line.empty()) return true;
  return cohorts_.size() > 1 && line.rbegin()->first < cohorts_.back().from;
}

Nanos WaitMeter::WaitedOf(Nanos began, Nanos now) const {
  return Reading(now) - std::max(began, anew_);
}

Nanos WaitMeter::BoundOf(Nanos began) const {
  if (cohorts_.empty()) return 0;
  const auto next = std::find_if(cohorts_.begin() + 1, cohorts_.end(),
                                 [began](const Cohort& cohort) { return cohort.from > began; });
  return std::prev(next)->bound;
}

std::optional<Nanos> WaitMeter::FirstDue(const Line& line, Nanos now) const {
  std::optional<Nanos> first;
  for (size_t i = 0; i < cohorts_.size(); ++i) {
    const auto oldest = i == 0 ? line.begin() : line.lower_bound({cohorts_[i].from, 0});
    if (oldest == line.end()) break;
    const Nanos due = now + cohorts_[i].bound - WaitedOf(oldest->first, now);
    first = std::min(first.value_or(due), due);
  }
  return first;
}

std::vector<uint64_t> WaitMeter::DueBy(Nanos by, const Line& line, Nanos now) const {
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < cohorts_.size(); ++i) {
    auto it = i == 0 ? line.begin() : line.lower_bound({cohorts_[i].from, 0});
    const auto end =
        i + 1 == cohorts_.size() ? line.end() : line.lower_bound({cohorts_[i + 1].from, 0});
    for (; it != end && now + cohorts_[i].bound - WaitedOf(it->first, now) <= by; ++it) {
      ids.push_back(it->second);
    }
  }
  return ids;
}

}  // namespace switchyard::supervisor
