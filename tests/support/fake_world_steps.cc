// What a fake worker does with sequences: looks at them, and runs them step by step.

#include <algorithm>

#include "supervisor/catalog.h"
#include "tests/support/fake_world.h"

namespace switchyard::supervisor {

// Also what it is looking at it does not come to the end of, once it is deaf.
void FakeWorker::Look(uint64_t id, std::function<void()> then) {
  const bool sticks =
      std::exchange(sticks_at_next_, false) || world_->Chance(world_->rules.faults.sticks);
  if (deaf_ || sticks) {
    unheard_.emplace(id, world_->timers.Awake());
    return;
  }
  const Nanos now = world_->timers.Now();
  validates_until_ = std::max(validates_until_, now) + world_->rules.validates;
  if (validates_until_ == now) return then();
  After(validates_until_ - now, [this, then = std::move(then)] {
    if (!deaf_) then();
  });
}

void FakeWorker::Submit(const v1::Submit& submit) {
  const uint64_t id = submit.request_id();
  world_->unseen -= submit.request().SpaceUsedLong();
  if (cancelled_.erase(id) > 0) return Reject(id, absl::StatusCode::kCancelled, "cancelled");
  ++world_->submits;
  if (sequences_.count(id) > 0) world_->on_violation("the same request twice");
  if (submit.request().model() != model()) world_->on_violation("another model's request");
  // Only for probes it does not matter how long they wait behind others.
  if (submit.patience_ns() == 0 && submit.request().priority() > -100) {
    world_->on_violation("a request that may wait for ever");
  }
  if (submit.request().text() == "bad" || world_->Chance(world_->rules.faults.refuses_request)) {
    return Reject(id, absl::StatusCode::kInvalidArgument, "bad parameter");
  }
  sequences_[id].came = world_->timers.Now();
  sequences_[id].damaged =
      submit.request().text() == "damaged" || world_->Chance(world_->rules.faults.damages);
  sequences_[id].prompt_left = world_->rules.prompt_steps;
  sequences_[id].tokens_left = std::max<uint32_t>(submit.request().stop().max_tokens(), 1);
  v1::FromWorker message;
  message.mutable_accepted()->set_request_id(id);
  Reply(std::move(message));
  Wake();
}

void FakeWorker::Reject(uint64_t id, absl::StatusCode code, const char* why) {
  v1::FromWorker message;
  message.mutable_rejected()->set_request_id(id);
  message.mutable_rejected()->set_code(static_cast<int>(code));
  message.mutable_rejected()->set_message(why);
  Reply(std::move(message));
}

void FakeWorker::StepFor(Nanos length) {
  long_step_from_ = world_->timers.Now();
  long_step_until_ = long_step_from_ + length;
  After(length, [this] { ++steps_; });
}

void FakeWorker::Wake() {
  if (stepping_ || wedged_) return;
  stepping_ = true;
  const Nanos took = world_->Delay(world_->rules.step);
  step_from_ = Whole(held_) && !sequences_.empty() ? world_->timers.Now() : 0;
  step_takes_ = took;
  After(took, [this, took] {
    stepping_ = false;
    step_from_ = 0;
    Step(took);
  });
}

void FakeWorker::Step(Nanos took) {
  if (wedged_) return;
  if (world_->Chance(world_->rules.faults.dies_at_step)) return Die("bad step");
  if (Whole(held_)) {
    const uint64_t spare = settled_ ? held_.kv - needs_.kv_smallest : 0;
    if (spare > 0 && world_->Chance(world_->rules.faults.loses_kv)) {
      LoseKv(needs_.kv_smallest + world_->Below(spare));
    }
    v1::FromWorker message;
    std::vector<uint64_t> no_answer;
    bool stepped = false;
    const uint64_t held_on_host = paused_bytes();
    size_t running = Count(Sequence::State::kRunning);
    for (auto it = sequences_.begin(); it != sequences_.end();) {
      auto& [id, sequence] = *it;
      if (sequence.state != Sequence::State::kRunning) {
        // A lease that goes away starts nothing.
        const bool comes =
            Whole(target_) || (Finishes() && sequence.state == Sequence::State::kPaused);
        if (!comes || running >= world_->rules.max_sequences) {
          ++it;
          continue;
        }
        sequence.state = Sequence::State::kRunning;
        ++running;
      }
      if (sequence.suspended) {
        ++it;
        continue;
      }
      if (running > 1 && world_->Chance(world_->rules.faults.lacks_blocks)) {
        Pause(sequence, host_limit_);
        --running;
        auto& event = *message.mutable_step()->add_events();
        event.set_request_id(id);
        event.mutable_event()->mutable_waiting()->set_paused(true);
        ++it;
        continue;
      }
      if (sequence.prompt_left > 0) {
        --sequence.prompt_left;
        stepped = true;
        ++it;
        continue;
      }
      if (broken_ || sequence.damaged || world_->damaged.count(model()) > 0) {
        message.mutable_step();
        no_answer.push_back(id);
        it = sequences_.erase(it);
        continue;
      }
      auto& event = *message.mutable_step()->add_events();
      event.set_request_id(id);
      if (!sequence.begun) {
        v1::GenerateEvent::Start& start = *event.mutable_event()->mutable_start();
        start.set_model(model());
        for (int32_t token = 0; token < 3; ++token) start.add_prompt_ids(token);
        sequence.began = world_->timers.Now();
      }
      sequence.begun = true;
      event.mutable_event()->add_ids(42);
      event.mutable_event()->set_text("word ");
      if (--sequence.tokens_left > 0) {
        ++it;
        continue;
      }
      v1::GenerateEvent::Finish& finish = *event.mutable_event()->mutable_finish();
      finish.set_reason(v1::LENGTH);
      finish.mutable_timings()->set_queue_ms(static_cast<double>(sequence.began - sequence.came) /
                                             kMillisecond);
      it = sequences_.erase(it);
    }
    stepped |= message.has_step();
    if (stepped) {
      busy_ += took;
      ++steps_;
    }
    if (message.has_step()) {
      message.mutable_step()->set_busy_ns(static_cast<uint64_t>(busy_));
      Reply(std::move(message));
    }
    if (paused_bytes() != held_on_host) TellLease(settled_, "");
    for (const uint64_t id : no_answer) {
      if (broken_) {
        Reject(id, absl::StatusCode::kInternal, "an illegal memory access was encountered");
      } else {
        Reject(id, absl::StatusCode::kDataLoss, "its logits are not numbers");
      }
    }
    if (stepped && !sequences_.empty()) Wake();
  }
  if (!settled_) Follow();
}

}  // namespace switchyard::supervisor
