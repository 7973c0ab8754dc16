// A fake worker's lease: it grows and shrinks in steps, and sequences in flight are paused for it.

#include <algorithm>

#include "tests/support/fake_world.h"

namespace switchyard::supervisor {

void FakeWorker::SetLease(const v1::SetLease& set) {
  if (set.epoch() <= lease_.epoch()) world_->on_violation("epochs go backwards");
  const Bytes target{set.lease().fixed_bytes(), set.lease().weight_bytes(), set.lease().kv_bytes()};
  // What has just gone the router may not have heard of: it asks for it back, and is told.
  const bool just_gone = world_->timers.Awake() - let_go_at_ <= 2 * kSecond;
  if (target.weights > held_.weights && filled_ == 0 && !lost_ && !just_gone) {
    world_->on_violation("weights wanted without a master");
  }
  lease_ = set;
  host_limit_ = set.host_kv_bytes();
  target_ = target;
  settled_ = false;
  if (target.total() > held_.total()) ++world_->grows;
  grows_since_ = target.weights > held_.weights ? world_->timers.Now() : 0;
  Follow();
}

// Weights that come next: half of what is missing, as far as the master has been filled.
uint64_t FakeWorker::NextPiece() const {
  const uint64_t missing = target_.weights - std::min(held_.weights, target_.weights);
  const uint64_t there = std::max(filled_, held_.weights) - held_.weights;
  return std::min(there, missing > needs_.chunk ? missing / 2 : missing);
}

// Moves the lease one step towards the target, again and again.
void FakeWorker::Follow() {
  if (following_) return;
  following_ = true;
  if (target_.total() > held_.total() && world_->Chance(world_->rules.faults.stalls)) return;
  const bool slow = world_->Chance(world_->rules.faults.slow_ack);
  Nanos takes = world_->Delay(slow ? 3 * kSecond : 20 * kMillisecond);
  if (const double rate = world_->rules.bytes_per_second; rate > 0 && NextPiece() > 0) {
    takes = static_cast<Nanos>(static_cast<double>(NextPiece()) / rate * kSecond) + 1;
  }
  After(std::max(takes, long_step_until_ - world_->timers.Now()), [this] {
    following_ = false;
    if (settled_) return;
    if (!Whole(target_) && Count(Sequence::State::kRunning) > 0) {
      if (lease_.in_flight() != v1::SetLease::PAUSE) return;  // Step() comes back to it
      PauseAll();
    }
    if (Finishes() && Count(Sequence::State::kPaused) > 0) return Wake();
    const bool grows = !held_.Covers(target_);
    const bool starves = target_.weights > held_.weights && master_ == 0;
    if (grows && (starves || GrowthFails())) {
      held_ = Min(held_, target_);
      settled_ = true;
      return TellLease(true, starves ? "the master is gone" : "out of memory");
    }
    // Shrinks at once; grows by halves, as far as the master has been filled.
    if (target_.weights < held_.weights) let_go_at_ = world_->timers.Awake();
    held_ = Min(held_, target_);
    held_.fixed = target_.fixed;
    const uint64_t piece = NextPiece();
    held_.weights += piece;
    if (held_.weights == target_.weights) held_.kv = target_.kv;
    const bool copies = world_->rules.tells_early && piece > 0;
    settled_ = held_ == target_ && !copies;
    if (settled_ && grows_since_ > 0) world_->swapping += world_->timers.Now() - grows_since_;
    TellLease(settled_, "");
    Wake();
    // A growth that waits for the master goes on when that was filled further.
    if (!settled_ && (piece > 0 || held_.weights == target_.weights)) Follow();
  });
}

// It is about to end, and who is paused comes back before that.
bool FakeWorker::Finishes() const {
  return lease_.in_flight() == v1::SetLease::FINISH && !Whole(target_) && Whole(held_);
}

void FakeWorker::LoseKv(uint64_t left) {
  held_.kv = std::min(held_.kv, left);
  TellLease(settled_, "out of memory");
}

bool FakeWorker::GrowthFails() {
  const bool host_short = world_->host_short.count(model()) > 0 && filled_ == needs_.image;
  if (world_->unloadable.count(model()) == 0 && !host_short) {
    return world_->Chance(world_->rules.faults.grow_fails);
  }
  ++world_->failed_loads[model()];
  return true;
}

void FakeWorker::PauseAll() {
  ++world_->pauses;
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    auto& [id, sequence] = *it;
    if (sequence.state != Sequence::State::kRunning) {
      ++it;
      continue;
    }
    if (!Pause(sequence, lease_.host_kv_bytes())) {
      Reject(id, absl::StatusCode::kResourceExhausted, "no host memory to pause into");
      world_->on_violation("too little host memory was reserved");
      it = sequences_.erase(it);
      continue;
    }
    v1::FromWorker message;
    auto& event = *message.mutable_step()->add_events();
    event.set_request_id(id);
    event.mutable_event()->mutable_waiting()->set_paused(true);
    if (world_->rules.launches_ahead && sequence.begun && sequence.tokens_left > 1) {
      event.mutable_event()->add_ids(42);
      event.mutable_event()->set_text("word ");
      --sequence.tokens_left;
    }
    Reply(std::move(message));
    ++it;
  }
}

// Whether its KV is kept.
bool FakeWorker::Pause(Sequence& sequence, uint64_t host_limit) {
  sequence.kept = paused_bytes() + needs_.kv_smallest / 8 <= host_limit;
  sequence.state = Sequence::State::kPaused;
  return sequence.kept;
}

void FakeWorker::TellLease(bool settled, const char* error) {
  if (settled) host_limit_ = std::min(host_limit_, paused_bytes());
  v1::FromWorker message;
  v1::LeaseStatus& status = *message.mutable_lease();
  status.set_epoch(lease_.epoch());
  status.mutable_held()->set_fixed_bytes(held_.fixed);
  status.mutable_held()->set_weight_bytes(held_.weights);
  status.mutable_held()->set_kv_bytes(held_.kv);
  status.set_settled(settled);
  status.set_error(error);
  status.set_host_short(*error != 0 && world_->host_short.count(model()) > 0);
  status.set_host_kv_bytes(paused_bytes());
  status.set_running(static_cast<uint32_t>(Count(Sequence::State::kRunning)));
  status.set_paused(static_cast<uint32_t>(Count(Sequence::State::kPaused)));
  status.set_waiting(static_cast<uint32_t>(Count(Sequence::State::kWaiting)));
  Reply(std::move(message));
}

}  // namespace switchyard::supervisor
