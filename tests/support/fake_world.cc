#include "tests/support/fake_world.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "supervisor/catalog.h"

namespace switchyard::supervisor {
namespace {

class FakePort final : public WorkerPort {
 public:
  FakePort(FakeWorld* world, std::shared_ptr<FakeWorker> worker)
      : world_(world), worker_(std::move(worker)) {}

  // In order, with a delay.
  void Send(v1::ToWorker message) override {
    world_->on_sent(worker_->incarnation(), message);
    if (message.has_submit()) world_->unseen += message.submit().request().SpaceUsedLong();
    world_->most_unseen = std::max(world_->most_unseen, world_->unseen);
    last_ = std::max(last_, world_->timers.Now() + world_->Delay(world_->rules.latency));
    world_->timers.Start(last_ - world_->timers.Now(),
                         [worker = worker_, message = std::move(message)] {
                           if (worker->alive()) worker->OnCommand(message);
                         });
  }
  absl::Status SendMaster(uint64_t master_id) override {
    if (world_->masters.count(master_id) == 0 || world_->closed.count(master_id) > 0) {
      world_->on_violation("SendMaster of a closed master");
    }
    const bool fails = world_->Chance(world_->rules.faults.send_fails);
    return fails ? absl::UnavailableError("sendmsg: broken pipe") : absl::OkStatus();
  }
  void Terminate(bool force) override {
    world_->on_terminate(worker_->incarnation());
    worker_->Terminate(force);
  }
  int pid() const override { return 1000 + static_cast<int>(worker_->incarnation()); }

 private:
  FakeWorld* world_;
  std::shared_ptr<FakeWorker> worker_;
  Nanos last_ = 0;
};

}  // namespace

FakeWorker::FakeWorker(FakeWorld* world, const LaunchSpec& spec) : world_(world), spec_(spec) {
  spec_.plan.set_fixed_bytes(spec.plan.fixed_bytes() + world->rules.more_fixed);
  needs_ = NeedsOf(spec_.plan);
  silent_since_ = world->timers.Awake();
  if (world_->Chance(world_->rules.faults.hangs_at_launch)) Hang();
  After(world_->Delay(world_->rules.first_sign), [this] { Speak(); });
}

// From now on it beats, whatever the start takes.
void FakeWorker::Speak() {
  spoke_ = true;
  Beat();
  const Nanos takes = world_->Delay(world_->rules.start);
  if (!world_->Chance(world_->rules.faults.hangs_at_start)) {
    return After(takes, [this] { Start(); });
  }
  After(takes, [this] { Hang(); });
}

void FakeWorker::After(Nanos delay, std::function<void()> what) {
  world_->timers.Start(delay, [this, life = life_, what = std::move(what)] {
    if (*life && !gone_ && !hung_) what();
  });
}

// Messages arrive in order, also when some take longer.
void FakeWorker::Reply(v1::FromWorker message) {
  if (hung_ || gone_) return;
  last_reply_ = std::max(last_reply_, world_->timers.Now() + world_->Delay(world_->rules.latency));
  world_->timers.Start(last_reply_ - world_->timers.Now(),
                       [world = world_, id = spec_.incarnation, message = std::move(message)] {
                         if (world->workers.count(id) > 0) world->on_message(id, message);
                       });
}

void FakeWorker::Start() {
  if (world_->Chance(world_->rules.faults.dies_at_start)) return Die("bad start");
  ready_ = true;
  if (world_->Chance(world_->rules.faults.deaf)) Deafen();
  if (world_->Chance(world_->rules.faults.checkpoint_changes)) {
    world_->image_keys[model()] = absl::StrCat("changed at ", world_->timers.Now());
  }
  v1::FromWorker message;
  message.mutable_hello()->set_pid(1000 + static_cast<int>(spec_.incarnation));
  *message.mutable_hello()->mutable_plan() = spec_.plan;
  if (auto key = world_->image_keys.find(model()); key != world_->image_keys.end()) {
    message.mutable_hello()->mutable_plan()->set_image_key(key->second);
  }
  Reply(std::move(message));
}

void FakeWorker::Hang() {
  if (hung_) return;
  hung_ = true;
  silent_since_ = std::max(silent_since_, world_->timers.Awake());
}

Nanos FakeWorker::silence() const {
  return hung_ && !exiting_ ? world_->timers.Awake() - silent_since_ : 0;
}

Nanos FakeWorker::deafness() const {
  Nanos longest = 0;
  for (const auto& [id, since] : unheard_) {
    longest = std::max(longest, world_->timers.Awake() - since);
  }
  return exiting_ ? 0 : longest;
}

void FakeWorker::Beat() {
  v1::FromWorker message;
  v1::Heartbeat& beat = *message.mutable_heartbeat();
  beat.set_running(static_cast<uint32_t>(Count(Sequence::State::kRunning)));
  beat.set_waiting(static_cast<uint32_t>(Count(Sequence::State::kWaiting)));
  beat.set_paused(static_cast<uint32_t>(Count(Sequence::State::kPaused)));
  beat.set_steps(steps_);
  beat.set_busy_ns(static_cast<uint64_t>(busy_));
  if (const Nanos now = world_->timers.Now(); now < long_step_until_) {
    beat.set_step_running_ns(static_cast<uint64_t>(now - long_step_from_));
    beat.set_step_predicted_ns(static_cast<uint64_t>(long_step_until_ - long_step_from_));
  } else if (step_from_ > 0 && !wedged_) {
    beat.set_step_running_ns(static_cast<uint64_t>(now - step_from_));
    beat.set_step_predicted_ns(static_cast<uint64_t>(step_takes_));
  }
  // A block is a byte.
  beat.set_kv_blocks_used(
      std::min(held_.kv, beat.running() * std::max<uint64_t>(needs_.kv_smallest / 8, 1)));
  beat.set_kv_blocks_total(held_.kv);
  Reply(std::move(message));
  After(500 * kMillisecond, [this] { Beat(); });
}

size_t FakeWorker::Count(Sequence::State state) const {
  return static_cast<size_t>(std::count_if(sequences_.begin(), sequences_.end(),
                                           [&](const auto& s) { return s.second.state == state; }));
}

uint64_t FakeWorker::paused_bytes() const {
  const auto kept = std::count_if(sequences_.begin(), sequences_.end(), [](const auto& s) {
    return s.second.state == Sequence::State::kPaused && s.second.kept;
  });
  return static_cast<uint64_t>(kept) * (needs_.kv_smallest / 8);
}

void FakeWorker::Die(const std::string& how) {
  if (gone_ || exiting_) return;
  hung_ = true;  // says nothing more
  Exit(world_->Chance(world_->rules.faults.unkillable) ? 25 * kSecond
                                                       : world_->Delay(5 * kMillisecond));
}

void FakeWorker::Exit(Nanos delay) {
  if (exiting_) return;
  exiting_ = true;
  world_->timers.Start(delay, [world = world_, id = spec_.incarnation, life = life_, this] {
    if (!*life) return;
    gone_ = true;
    *life = false;
    std::shared_ptr<FakeWorker> keep = world->workers.at(id);
    world->workers.erase(id);
    world->devices.erase(id);
    WorkerExit exit;
    exit.wait_status = 9;
    exit.last_lines = {"last words"};
    world->on_gone(id, exit);
  });
}

void FakeWorker::Terminate(bool force) {
  if (!force && hung_) return;
  if (force && !spoke_) ++world_->silent_starts[model()];
  hung_ = true;
  Exit(world_->Chance(world_->rules.faults.unkillable) ? 25 * kSecond
                                                       : world_->Delay(20 * kMillisecond));
}

void FakeWorker::OnCommand(const v1::ToWorker& message) {
  if (hung_ || exiting_) return;
  if (!ready_) world_->on_violation("a command before Hello");
  if (world_->Chance(world_->rules.faults.dies_at_message)) return Die("bad command");
  if (world_->Chance(world_->rules.faults.hangs)) return Hang();
  switch (message.message_case()) {
    case v1::ToWorker::kUseMaster:
      return UseMaster(message.use_master());
    case v1::ToWorker::kDropMaster: {
      if (message.drop_master().master_id() != master_) world_->on_violation("drop of a stranger");
      const uint64_t id = master_;
      if (clings_) return;
      master_ = filled_ = 0;
      return After(world_->Delay(10 * kMillisecond),
                   [this, id] { SendMaster(id, v1::MasterStatus::DROPPED, 0, ""); });
    }
    case v1::ToWorker::kSetLease:
      return SetLease(message.set_lease());
    case v1::ToWorker::kSubmit:
      return Look(message.submit().request_id(),
                  [this, submit = message.submit()] { Submit(submit); });
    case v1::ToWorker::kCancel:
      unheard_.erase(message.cancel().request_id());
      if (validates_until_ > world_->timers.Now()) cancelled_.insert(message.cancel().request_id());
      if (const uint64_t held = paused_bytes();
          sequences_.erase(message.cancel().request_id()) > 0) {
        Reject(message.cancel().request_id(), absl::StatusCode::kCancelled, "cancelled");
        if (paused_bytes() != held) TellLease(settled_, "");
      }
      return Wake();
    case v1::ToWorker::kSuspend: {
      auto it = sequences_.find(message.suspend().request_id());
      if (it != sequences_.end()) it->second.suspended = message.suspend().suspended();
      return Wake();
    }
    case v1::ToWorker::kTokenize: {
      v1::FromWorker reply;
      reply.mutable_tokenize()->set_request_id(message.tokenize().request_id());
      reply.mutable_tokenize()->mutable_reply()->add_ids(7);
      return Look(reply.tokenize().request_id(), [this, reply] { Reply(reply); });
    }
    case v1::ToWorker::kDetokenize: {
      v1::FromWorker reply;
      reply.mutable_detokenize()->set_request_id(message.detokenize().request_id());
      reply.mutable_detokenize()->mutable_reply()->set_text("seven");
      return Look(reply.detokenize().request_id(), [this, reply] { Reply(reply); });
    }
    case v1::ToWorker::kShutdown:
      return Exit(world_->Delay(50 * kMillisecond));
    case v1::ToWorker::MESSAGE_NOT_SET:
      return;
  }
}

void FakeWorker::UseMaster(const v1::UseMaster& use) {
  if (master_ != 0) world_->on_violation("two masters");
  master_ = use.master_id();
  streamed_ = use.streamed();
  lost_ = false;
  // One that is closed was given up meanwhile, and so was this worker.
  const auto filled = world_->filled.find(master_);
  if (filled != world_->filled.end() && use.complete() != filled->second) {
    world_->on_violation("complete is not so");
  }
  if (!use.complete()) {
    ++world_->fills;
    return Fill(master_, 0);
  }
  After(world_->Delay(10 * kMillisecond), [this, id = master_] {
    filled_ = needs_.image;
    SendMaster(id, v1::MasterStatus::COMPLETE, needs_.image, "");
  });
}

void FakeWorker::Fill(uint64_t id, uint64_t done) {
  if (world_->Chance(world_->rules.faults.stalls)) return;
  After(world_->Delay(world_->rules.fills), [this, id, done] {
    if (FillFails(done)) {
      master_ = filled_ = 0;
      lost_ = true;
      SendMaster(id, v1::MasterStatus::FAILED, done, "truncated checkpoint");
      if (!settled_) Follow();
      return;
    }
    const uint64_t now = std::min(needs_.image, done + needs_.image / 3 + 1);
    // What is streamed can be read when it is complete, and not before.
    if (!streamed_ || now == needs_.image) filled_ = now;
    if (!settled_) Follow();
    if (now == needs_.image) {
      world_->filled[id] = true;
      return SendMaster(id, v1::MasterStatus::COMPLETE, now, "");
    }
    SendMaster(id, v1::MasterStatus::FILLING, now, "");
    Fill(id, now);
  });
}

// What ends too early fails near its end, as does what the host has no memory for.
bool FakeWorker::FillFails(uint64_t done) {
  const bool fails = world_->unreadable.count(model()) > 0 || world_->host_short.count(model()) > 0;
  if (!fails || done + needs_.image / 3 + 1 < needs_.image) {
    return world_->Chance(world_->rules.faults.fill_fails);
  }
  ++world_->failed_loads[model()];
  return true;
}

void FakeWorker::SendMaster(uint64_t id, v1::MasterStatus::State state, uint64_t done,
                            const char* error) {
  v1::FromWorker message;
  message.mutable_master()->set_master_id(id);
  message.mutable_master()->set_state(state);
  message.mutable_master()->set_bytes_done(done);
  message.mutable_master()->set_bytes_total(needs_.image);
  message.mutable_master()->set_error(error);
  message.mutable_master()->set_host_short(*error != 0 && world_->host_short.count(model()) > 0);
  if (*error != 0)
    message.mutable_master()->set_code(static_cast<int>(absl::StatusCode::kDataLoss));
  Reply(std::move(message));
}

absl::StatusOr<std::unique_ptr<WorkerPort>> FakeWorld::Launch(const LaunchSpec& spec) {
  ++launches;
  if (Chance(rules.faults.launch_fails)) return absl::NotFoundError("there is no such program");
  if (Chance(rules.faults.starves)) return absl::ErrnoToStatus(EMFILE, "socketpair");
  for (const auto& [id, worker] : workers) {
    if (worker->model() == spec.model.name()) on_violation("two workers of one model");
  }
  auto worker = std::make_shared<FakeWorker>(this, spec);
  workers[spec.incarnation] = worker;
  devices[spec.incarnation] = spec.device;
  return std::make_unique<FakePort>(this, worker);
}

absl::StatusOr<uint64_t> FakeWorld::Create(const std::string&, uint64_t bytes) {
  if (Chance(rules.faults.starves)) return absl::ErrnoToStatus(EMFILE, "memfd_create");
  if (Chance(rules.faults.no_memfd)) return absl::InternalError("no such system call");
  const uint64_t id = next_master_++;
  masters[id] = bytes;
  filled[id] = false;
  return id;
}

void FakeWorld::Keep(uint64_t master_id, const std::string&, const std::string& image_key) {
  if (!filled[master_id]) on_violation("a master is kept that is not complete");
  kept[master_id] = image_key;
}

void FakeWorld::Close(uint64_t master_id) {
  kept.erase(master_id);
  Leave(master_id);
}

void FakeWorld::Leave(uint64_t master_id) {
  if (masters.count(master_id) == 0 || !closed.insert(master_id).second) {
    return on_violation("a master is closed twice");
  }
  filled.erase(master_id);
  timers.Start(rules.frees, [this, master_id] {
    masters.erase(master_id);
    closed.erase(master_id);
    on_freed(master_id);
  });
}

uint64_t FakeWorld::LeftOver(uint64_t bytes) {
  const uint64_t id = next_master_++;
  masters[id] = bytes;
  filled[id] = true;
  return id;
}

bool FakeWorld::Chance(double probability) {
  if (probability <= 0) return false;
  return static_cast<double>(random_() % 1'000'000) < probability * 1e6;
}

FakeWorker* FakeWorld::WorkerOf(const std::string& model) {
  for (const auto& [id, worker] : workers) {
    if (worker->model() == model && worker->alive()) return worker.get();
  }
  return nullptr;
}

uint64_t FakeWorld::HeldOn(const std::string& device) const {
  uint64_t sum = 0;
  for (const auto& [id, worker] : workers) {
    if (devices.at(id) == device) sum += worker->held().total();
  }
  return sum;
}

uint64_t FakeWorld::PausedBytes() const {
  uint64_t sum = 0;
  for (const auto& [id, worker] : workers) sum += worker->paused_bytes();
  return sum;
}

}  // namespace switchyard::supervisor
