#include "supervisor/probe.h"

#include <algorithm>

#include "absl/status/status.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kLeast = 5 * kSecond;
constexpr uint64_t kMostPredicted = 3600ull * kSecond;
constexpr Nanos kBeat = kSecond / 2;  // from one heartbeat to the next

}  // namespace

Nanos LongestStep(uint64_t predicted_ns) {
  return static_cast<Nanos>(std::max(kLeast, std::min(predicted_ns, kMostPredicted) * 10));
}

bool StepWatch::Hangs(const v1::Heartbeat& beat, Nanos running, Nanos now) {
  const Nanos longest = LongestStep(beat.step_predicted_ns());
  const Nanos between = longest / 10;
  if (running <= longest - between - kBeat) {
    looked_at_ = 0;
  } else if (looked_at_ == 0 || beat.steps() != steps_) {
    steps_ = beat.steps();
    looked_at_ = now;
  } else {
    return running > longest && now - looked_at_ >= between;
  }
  return false;
}

void Unproved::Could(bool could, Nanos now) {
  if (could_) spent_ += now - since_;
  could_ = could;
  since_ = now;
}

void Unproved::Reset(Nanos now) {
  spent_ = 0;
  since_ = now;
}

Nanos ProbeAfter(Nanos interval, double jitter) {
  return interval - static_cast<Nanos>(static_cast<double>(interval) * jitter / 4);
}

bool InAStep(const v1::Heartbeat& last) {
  const auto longest = static_cast<uint64_t>(LongestStep(last.step_predicted_ns()));
  return last.step_running_ns() > 0 && last.step_running_ns() <= longest;
}

bool StandsStill(uint64_t steps_before, const v1::Heartbeat& last) {
  return last.steps() == steps_before && !InAStep(last);
}

bool IsDamage(const v1::Rejected& rejected) {
  return rejected.code() == static_cast<int>(absl::StatusCode::kDataLoss);
}

bool IsFault(const v1::Rejected& rejected) {
  return IsDamage(rejected) || rejected.code() == static_cast<int>(absl::StatusCode::kInternal);
}

}  // namespace switchyard::supervisor
