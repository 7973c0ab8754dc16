#include "worker/engine/lease_keeper.h"

#include <algorithm>

#include "common/available_memory.h"

namespace switchyard::worker {
namespace {

constexpr Nanos kProgressInterval = 10 * kMillisecond;
constexpr uint64_t kProgressParts = 64;

}  // namespace

LeaseKeeper::LeaseKeeper(uint64_t image_bytes, const KvLayout& layout, Residency& residency,
                         KvCache& cache)
    : image_bytes_(image_bytes), layout_(layout), residency_(residency), cache_(cache) {}

void LeaseKeeper::SetTarget(const LeaseTarget& target) {
  if (known_ && target.epoch < target_.epoch) return;
  known_ = true;
  target_ = target;
  host_kv_limit_ = target.host_kv_bytes;
  weights_pending_ = kv_pending_ = true;
  kv_stuck_ = false;
  weights_error_ = kv_error_ = absl::OkStatus();
  reported_ = false;
}

bool LeaseKeeper::holds_model() const {
  return known_ && target_.weight_bytes >= image_bytes_ &&
         target_.kv_bytes >= layout_.smallest_bytes;
}

bool LeaseKeeper::may_step() const {
  return residency_.target_bytes() == image_bytes_ && residency_.error().ok() &&
         cache_.limit() >= layout_.smallest_bytes;
}

bool LeaseKeeper::WouldShrink(bool anyone_left) const {
  if (!known_ || !may_shrink(anyone_left)) return false;
  // What a growth under way has not committed yet may be there when it is cut short.
  if (weights_pending_ && target_.weight_bytes < residency_.target_bytes()) return true;
  if (!over_target() || kv_stuck_) return false;
  // Room at the top of the limit that was never committed, or granules that can be freed.
  return cache_.committed_bytes() <= target_.kv_bytes ||
         cache_.committed_bytes() < cache_.limit() ||
         cache_.Room().Bytes() < cache_.committed_bytes();
}

void LeaseKeeper::Work(bool anyone_left) {
  if (!known_ || !may_shrink(anyone_left)) return;
  if (weights_pending_) WorkOnWeights();
  WorkOnKv();
}

void LeaseKeeper::WorkOnWeights() {
  weights_pending_ = false;
  weights_error_ = residency_.SetTarget(target_.weight_bytes);
}

void LeaseKeeper::WorkOnKv() {
  if (over_target() && !kv_stuck_) {
    if (absl::Status status = cache_.Shrink(target_.kv_bytes); !status.ok()) {
      kv_error_ = status;
      kv_stuck_ = true;
    }
    cache_.SetLimit(std::max(target_.kv_bytes, cache_.committed_bytes()));
  }
  if (!kv_pending_) return;
  kv_pending_ = false;
  if (!over_target()) cache_.SetLimit(target_.kv_bytes);
  if (!holds_model()) return;
  if (absl::Status status = cache_.CommitSmallest(); !status.ok()) KvCommitFailed(status);
}

void LeaseKeeper::KvCommitFailed(const absl::Status& why) {
  kv_error_ = why;
  cache_.SetLimit(cache_.committed_bytes());
}

// ---- Reports

LeaseReport LeaseKeeper::Current(const SequenceCounts& counts) const {
  LeaseReport report;
  report.epoch = target_.epoch;
  // Asked in this order: a growth that ends in between is reported as under way, never the reverse.
  const bool weights_settled = !weights_pending_ && residency_.settled();
  const absl::Status copy_error = residency_.error();
  report.weight_bytes = residency_.committed_bytes();
  report.kv_bytes = cache_.limit();
  report.settled = weights_settled && !kv_pending_ && (!over_target() || kv_stuck_);
  for (const absl::Status& error : {weights_error_, copy_error, kv_error_}) {
    if (error.ok() || !report.error.empty()) continue;
    report.error = std::string(error.message());
    report.host_short = IsHostShort(error);
  }
  report.host_kv_bytes = counts.host_kv_bytes;
  report.running = counts.running;
  report.paused = counts.paused;
  report.waiting = counts.waiting;
  return report;
}

bool LeaseKeeper::WorthTelling(const LeaseReport& report, Nanos now) const {
  if (!reported_) return true;
  if (report.settled != last_.settled || report.error != last_.error ||
      report.kv_bytes != last_.kv_bytes || report.host_kv_bytes != last_.host_kv_bytes ||
      report.weight_bytes < last_.weight_bytes) {
    return true;
  }
  if (report.weight_bytes == last_.weight_bytes) return false;
  return report.weight_bytes - last_.weight_bytes >= image_bytes_ / kProgressParts ||
         now - last_time_ >= kProgressInterval;
}

void LeaseKeeper::Report(const SequenceCounts& counts, Nanos now, EngineSink& sink) {
  if (!known_) return;
  const LeaseReport report = Current(counts);
  if (report.settled) host_kv_limit_ = std::min(host_kv_limit_, report.host_kv_bytes);
  if (!WorthTelling(report, now)) return;
  reported_ = true;
  last_ = report;
  last_time_ = now;
  sink.OnLease(report);
}

}  // namespace switchyard::worker
