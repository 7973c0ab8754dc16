#include "tests/support/router_harness.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/probe.h"
#include "supervisor/router_impl.h"
#include "supervisor/signs_of_life.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kEventBytes = 100'000;  // so that a slow reader fills its buffer soon
// Of the 2 s that the process has after the grace; the rest is the server's.
constexpr Nanos kEndsWithin = 1300 * kMillisecond;

class ClientSink final : public GenerateSink {
 public:
  ClientSink(std::shared_ptr<ClientView> view, WaitWatch* waits,
             std::function<void(const std::string&)> violate)
      : view_(std::move(view)), waits_(waits), violate_(std::move(violate)) {}

  void Write(v1::GenerateEvent event) override {
    waits_->Tells(view_.get(), event);
    if (view_->finishes > 0 || view_->cancelled) violate_("an event after the end");
    if (view_->last) violate_("an event after the last");
    view_->starts += event.has_start() ? 1 : 0;
    if (view_->starts > 1) violate_("a second start");
    view_->tokens += static_cast<uint32_t>(event.ids_size());
    view_->waits += event.has_waiting() ? 1 : 0;
    view_->last = event.has_finish();
    if (event.has_finish()) view_->timings = event.finish().timings();
    if (!view_->reads) view_->buffered += kEventBytes;
    if (view_->buffered > (1 << 20)) view_->above = true;
  }
  void Finish(absl::Status status) override {
    waits_->Leaves(view_.get());
    if (++view_->finishes > 1) violate_("a request ended twice");
    if (view_->cancelled) violate_("a cancelled request was finished");
    if (status.ok() && !view_->last) violate_("OK without a last event");
    if (status.code() == absl::StatusCode::kUnavailable && view_->tokens > 0) {
      violate_("UNAVAILABLE after output");
    }
    if (!status.ok() && status.message().empty()) violate_("an error without a message");
    view_->status = std::move(status);
  }
  uint64_t buffered_bytes() const override { return view_->buffered; }

 private:
  std::shared_ptr<ClientView> view_;
  WaitWatch* waits_;
  std::function<void(const std::string&)> violate_;
};

class OperatorSink final : public SwitchSink {
 public:
  OperatorSink(std::shared_ptr<OperatorView> view, std::function<void()> ended,
               std::function<void(const std::string&)> violate)
      : view_(std::move(view)), ended_(std::move(ended)), violate_(std::move(violate)) {}
  void Write(const v1::SwitchEvent& event) override {
    if (view_->finishes > 0) violate_("a switch event after the end");
    if (event.bytes_done() > event.bytes_total()) violate_("more bytes done than there are");
    view_->events.push_back(event);
  }
  void Finish(absl::Status status) override {
    ended_();
    if (++view_->finishes > 1) violate_("a switch ended twice");
    const bool ready = !view_->events.empty() && view_->events.back().phase() == v1::READY;
    if (status.ok() != ready) violate_("a switch's last event and status differ");
    view_->status = std::move(status);
  }

 private:
  std::shared_ptr<OperatorView> view_;
  std::function<void()> ended_;
  std::function<void(const std::string&)> violate_;
};

}  // namespace

RouterHarness::RouterHarness(uint64_t seed, WorldRules rules, RouterOptions options,
                             std::vector<ModelEntry> catalog)
    : world(seed, rules), options_(std::move(options)), waits_(&world, options_, catalog) {
  // Faults are what these tests are made of: only what the log calls an error is worth a line.
  static const bool quiet = (InitLog("test", LogLevel::kError), true);
  (void)quiet;
  router = std::make_unique<Router>(
      options_, std::move(catalog),
      Router::Ports{&world, &world, &world.timers, &world, [this] { ++world.samples; },
                    [this](std::function<void()> back) { Echo(std::move(back)); }});
  world.on_message = [this](Incarnation id, const v1::FromWorker& message) {
    const std::string& model = world.workers.at(id)->model();
    Hear([=, this] {
      world.silent_starts.erase(model);
      waits_.Says(id, model, message);
      router->OnWorkerMessage(id, message);
    });
  };
  world.on_sent = [this](Incarnation id, const v1::ToWorker& message) { waits_.Sent(id, message); };
  world.on_terminate = [this](Incarnation id) { waits_.Ends(id); };
  world.on_gone = [this](Incarnation id, const WorkerExit& exit) {
    Hear([=, this] {
      waits_.Gone(id);
      router->OnWorkerGone(id, exit);
    });
  };
  world.on_freed = [this](uint64_t master_id) { router->OnMasterFreed(master_id); };
  world.on_violation = [this](const std::string& what) { Violate(what); };
}

RouterHarness::~RouterHarness() = default;

void RouterHarness::Hear(std::function<void()> what) {
  frozen_ ? unheard_.push_back(std::move(what)) : what();
}

void RouterHarness::Echo(std::function<void()> back) {
  if (frozen_) return echoes_.push_back(std::move(back));
  world.timers.Start(0, std::move(back));
}

// As on the thread of the supervisor: what was posted to it comes first, then it reads.
void RouterHarness::Thaw() {
  frozen_ = false;
  thawed_at_ = world.timers.Now();
  for (const auto& back : std::exchange(echoes_, {})) back();
  for (const auto& what : std::exchange(unheard_, {})) what();
}

void RouterHarness::Violate(const std::string& what) {
  if (violation_.empty()) {
    violation_ =
        absl::StrCat(what, " (event ", events_, ", at ", world.timers.Now() / kMillisecond, " ms)");
  }
}

std::shared_ptr<ClientView> RouterHarness::Generate(const std::string& model, uint32_t max_tokens,
                                                    Nanos timeout, int32_t priority,
                                                    const std::string& text) {
  auto view = std::make_shared<ClientView>();
  v1::GenerateRequest request;
  request.set_model(model);
  request.set_text(text);
  request.set_priority(priority);
  request.mutable_stop()->set_max_tokens(max_tokens);
  clients.push_back(view);
  const bool told_serving = world.health["model/" + model];
  waits_.Arrives(view.get(), model.empty() ? router->GetStatus().default_model() : model);
  view->id =
      router->Generate(std::move(request), timeout == 0 ? 0 : world.timers.Now() + timeout,
                       std::make_shared<ClientSink>(
                           view, &waits_, [this](const std::string& what) { Violate(what); }));
  const bool unavailable = view->status.code() == absl::StatusCode::kUnavailable ||
                           view->status.code() == absl::StatusCode::kFailedPrecondition;
  // What it caused itself, the failure of the worker that was started for it, health learns with
  // it.
  if (told_serving && unavailable && world.health["model/" + model]) {
    Violate(absl::StrCat("health says that ", model,
                         " serves, and a request is refused at once: ", view->status.ToString()));
  }
  return view;
}

std::shared_ptr<CallView> RouterHarness::Tokenize(const std::string& model) {
  auto view = std::make_shared<CallView>();
  v1::TokenizeRequest request;
  request.set_model(model);
  calls.push_back(view);
  auto reply = [this, view](const absl::StatusOr<v1::TokenizeReply>& answer) {
    if (++view->finishes > 1) Violate("a call ended twice");
    if (view->cancelled) Violate("a cancelled call was answered");
    if (!answer.ok() && answer.status().message().empty()) Violate("an error without a message");
    view->status = answer.status();
  };
  view->id = router->Tokenize(std::move(request), std::move(reply));
  return view;
}

void RouterHarness::Cancel(const std::shared_ptr<ClientView>& client) {
  if (client->finishes > 0) return;
  client->cancelled = true;
  waits_.Leaves(client.get());
  router->CancelRequest(client->id);
}

void RouterHarness::Cancel(const std::shared_ptr<CallView>& call) {
  if (call->finishes > 0) return;
  call->cancelled = true;
  router->CancelRequest(call->id);
}

void RouterHarness::Read(const std::shared_ptr<ClientView>& client) {
  client->reads = true;
  client->buffered = 0;
  if (client->above && client->finishes == 0) router->OnSinkDrained(client->id);
  client->above = false;
}

std::shared_ptr<OperatorView> RouterHarness::Switch(const std::string& model, bool make_default) {
  auto view = std::make_shared<OperatorView>();
  operators.push_back(view);
  waits_.Wants(model, true);
  router->Switch(model, make_default,
                 std::make_shared<OperatorSink>(
                     view, [this, model] { waits_.Wants(model, false); },
                     [this](const std::string& what) { Violate(what); }));
  return view;
}

absl::Status RouterHarness::Pin(const std::string& model, bool pinned) {
  waits_.Pins(model, pinned);
  return router->Pin(model, pinned);
}

void RouterHarness::Foreign(const std::string& device, uint64_t bytes) {
  leased_[device] = router->Ledger(device)->charged();
  router->OnForeignBytes(device, bytes);
}

void RouterHarness::ForeignBetween(const std::string& device, uint64_t least, uint64_t most) {
  leased_[device] = router->Ledger(device)->charged();
  router->OnForeignBetween(device, least, most);
}

// As its last reload has it.
Device RouterHarness::DeviceOf(const ModelEntry& entry) const {
  const DeviceLedger* ledger = router->Ledger(entry.model.device());
  return ledger == nullptr ? router->Ledger(options_.devices[0].name)->device() : ledger->device();
}

absl::Status RouterHarness::Reload(std::vector<ModelEntry> catalog, const std::string& device,
                                   uint64_t bytes) {
  std::vector<ModelEntry> planned;
  for (ModelEntry& entry : catalog) {
    if (entry.not_planned) continue;
    Device on = DeviceOf(entry);
    if (on.name == device) on.capacity_bytes = bytes;
    entry.problem = CheckFits(entry.plan, on, options_.host_budget_bytes);
    planned.push_back(entry);
  }
  waits_.Knows(planned);  // what is not planned is as it was
  leased_[device] = router->Ledger(device)->charged();
  return router->Reload(std::move(catalog), {Device{device, bytes, 0}}).status();
}

bool RouterHarness::RunUntil(const std::function<bool()>& done, Nanos most) {
  const Nanos end = world.timers.Now() + most;
  while (!done()) {
    if (world.timers.Now() > end || !violation_.empty() || !world.timers.Step()) return false;
    Check();
  }
  return violation_.empty();
}

void RouterHarness::RunFor(Nanos time) {
  bool over = false;
  world.timers.Start(time, [&over] { over = true; });
  RunUntil([&over] { return over; }, time + kSecond);
}

void RouterHarness::Check() {
  ++events_;
  if (!checks) return;
  for (const Device& device : options_.devices) CheckDevice(device.name);
  const HostLedger& host = router->HostAccount();
  if (host.used() > host.budget()) Violate("host budget exceeded");
  uint64_t used = world.PausedBytes();
  for (const auto& [id, bytes] : world.masters) used += bytes;
  if (used > host.used()) Violate("host memory in use that is not accounted for");
  // After a jump of the clock everything is late, until what was due has been done.
  if (world.timers.Behind()) return;
  if (std::string wrong = router->Audit(); !wrong.empty()) Violate(wrong);
  if (std::string wrong = waits_.Check(); !wrong.empty()) Violate(wrong);
  CheckSilence();
  CheckDeafness();
}

// A worker that says nothing is given up in time, whatever it was doing; if it could be heard.
void RouterHarness::CheckSilence() {
  if (frozen_) return;
  const Nanos heard = world.timers.Now() - thawed_at_;
  // A message that was on its way; and one that was told to end meanwhile has its time from then.
  const Nanos more = world.rules.latency + kEndPatience;
  for (const auto& [id, worker] : world.workers) {
    const auto starts = world.silent_starts.find(worker->model());
    const Nanos most =
        LongestSilence(worker->spoke(), starts == world.silent_starts.end() ? 0 : starts->second);
    if (std::min(worker->silence(), heard) <= most + more) continue;
    Violate(absl::StrCat("the worker of ", worker->model(), " has said nothing for ",
                         worker->silence() / kMillisecond, " ms"));
  }
}

// Nor does one stay that beats, and looks at nothing that it is sent. A probe at which it stuck has
// the time of a step, and what came meanwhile its own from then on.
void RouterHarness::CheckDeafness() {
  if (frozen_) return;
  const Nanos heard = world.timers.Now() - thawed_at_;
  const Nanos most = LongestStep(0) + kLongestLook + world.rules.latency + kEndPatience;
  for (const auto& [id, worker] : world.workers) {
    if (std::min(worker->deafness(), heard) <= most) continue;
    Violate(absl::StrCat("the worker of ", worker->model(), " has not looked at something for ",
                         worker->deafness() / kMillisecond, " ms"));
  }
}

void RouterHarness::CheckDevice(const std::string& name) {
  const DeviceLedger& ledger = *router->Ledger(name);
  uint64_t& leased = leased_[name];
  // Strangers may take us beyond the capacity; we ourselves never go further.
  if (ledger.over() > 0 && ledger.charged() > leased) {
    Violate(absl::StrCat(name, " is leased beyond its capacity"));
  }
  leased = ledger.charged();
  if (const uint64_t held = world.HeldOn(name); held > leased) {
    Violate(absl::StrCat("workers hold ", held, " of ", leased, " leased"));
  }
}

Nanos RouterHarness::DrainAndCheck(Nanos grace) {
  const Nanos then = world.timers.Now();
  bool done = false;
  router->Drain(grace, [&done] { done = true; });
  if (!RunUntil([&done] { return done; }, grace + kEndsWithin)) Violate("does not drain in time");
  const Nanos took = world.timers.Now() - then;
  RunUntil([this] { return world.workers.empty() && world.closed.empty(); }, 60 * kSecond);
  if (!world.workers.empty()) Violate("workers are left over");
  if (!world.masters.empty()) Violate("masters are left over");
  for (const auto& client : clients) {
    if (client->cancelled ? client->finishes != 0 : client->finishes != 1) {
      Violate(absl::StrCat("request ", client->id, " ended ", client->finishes, " times"));
    }
  }
  for (const auto& call : calls) {
    if (call->finishes != (call->cancelled ? 0 : 1)) {
      Violate(absl::StrCat("call ", call->id, " ended ", call->finishes, " times"));
    }
  }
  for (const auto& op : operators) {
    if (op->finishes != 1) Violate("a switch did not end");
  }
  for (const auto& [service, serving] : world.health) {
    if (serving) Violate(absl::StrCat("\"", service, "\" still serves"));
  }
  const v1::Status status = router->GetStatus();
  for (const v1::DeviceStatus& device : status.devices()) {
    if (device.leased_bytes() != 0) Violate("a lease is left over");
  }
  if (status.host().used_bytes() != 0) Violate("host memory is left over");
  return took;
}

v1::ModelStatus RouterHarness::StatusOf(const std::string& model) const {
  absl::StatusOr<v1::ModelStatus> status = router->GetModel(model);
  return status.ok() ? *status : v1::ModelStatus();
}

ModelEntry FakeModel(const std::string& name, uint64_t fixed, uint64_t chunk, uint32_t chunks,
                     uint64_t kv_smallest, uint64_t kv_useful) {
  ModelEntry entry;
  entry.model.set_name(name);
  entry.model.set_checkpoint("/checkpoints/" + name);
  v1::Plan& plan = entry.plan;
  plan.set_model(name);
  plan.set_family("llama");
  plan.set_fixed_bytes(fixed);
  plan.set_image_bytes(chunk * chunks);
  plan.set_chunk_bytes(chunk);
  plan.set_chunks(chunks);
  plan.set_kv_smallest_bytes(kv_smallest);
  plan.set_kv_useful_bytes(kv_useful);
  plan.set_kv_granule_bytes(1);
  plan.set_max_sequences(WorldRules().max_sequences);
  return entry;
}

ModelEntry UnplannedModel(v1::Model model) {
  ModelEntry entry;
  entry.model = std::move(model);
  entry.model.clear_device();
  entry.problem = absl::InternalError("planning ended with signal 9");
  entry.not_planned = true;
  return entry;
}

}  // namespace switchyard::supervisor
