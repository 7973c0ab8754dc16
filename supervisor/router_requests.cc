// The life of a request: unsent -> sent -> accepted -> running <-> paused -> gone.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "supervisor/retry_after.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kDecideSoon = kMillisecond;
constexpr Nanos kQueueRetry = 5 * kSecond;  // advice to those who find the queue full

absl::Status QueueFull(uint32_t limit, const char* what, const std::string& model) {
  return WithRetryAfter(
      absl::ResourceExhaustedError(absl::StrCat(
          limit, " ", what, " already wait for ", model,
          ", which is as many as may (queue_limit in the file of --config): try again later")),
      kQueueRetry);
}

}  // namespace

RequestId Router::Impl::Generate(v1::GenerateRequest generate, Nanos deadline,
                                 std::shared_ptr<GenerateSink> sink) {
  const RequestId id = NextId();
  auto refuse = [&](const absl::Status& status) {
    sink->Finish(status);
    return id;
  };
  absl::StatusOr<ModelRecord*> found = Resolve(generate.model());
  if (!found.ok()) return refuse(found.status());
  ModelRecord& model = **found;
  if (absl::Status status = RefusalOf(generate.model(), model); !status.ok()) return refuse(status);
  if (deadline != 0 && deadline <= Now()) {
    return refuse(absl::DeadlineExceededError("the deadline was over on arrival"));
  }
  if (model.requests.size() - model.running >= options_.queue_limit + FreeSlots(model)) {
    return refuse(QueueFull(options_.queue_limit, "requests", model.name()));
  }
  if (absl::Status status = Hopeless(model); !status.ok()) return refuse(status);
  auto request = std::make_unique<Request>(ports_.timers);
  request->id = id;
  request->model = model.name();
  request->request = std::move(generate);
  request->request.set_model(model.name());
  request->priority = std::clamp(request->request.priority(), -100, 100);
  request->tokens_left = request->request.stop().max_tokens();
  const uint64_t context = model.plan.context_length();
  if (request->tokens_left == 0 || (context > 0 && request->tokens_left > context)) {
    request->tokens_left = context;
  }
  request->deadline = deadline;
  request->arrived = Now();
  request->meter_at = model.clock.meter.Reading(Now());
  request->sink = std::move(sink);
  if (deadline != 0) {
    // The worker has the deadline too; this reaches requests that it does not have.
    Arm(request->deadline_alarm, deadline - Now(), [this, id] {
      if (Request* late = FindRequest(id)) {
        EndRequest(*late, absl::DeadlineExceededError("the deadline is over"), true);
      }
    });
  }
  model.requests.insert(id);
  ++model.priorities[request->priority];
  EnterStage(model, *request, Stage::kUnsent);
  state_.requests[id] = std::move(request);
  Touch(model);
  if (AtEase(model)) SendUnsent(model);
  Pump();
  if (Request* waits = FindRequest(id); waits != nullptr && waits->stage == Stage::kUnsent) {
    TellWaiting(*waits);
  }
  return id;
}

// How many more requests the model runs as soon as they come: those do not wait in the queue,
// though until its worker has said so they look as if they did.
size_t Router::Impl::FreeSlots(const ModelRecord& model) const {
  if (!Resident(model) || model.leave != Leave::kNo) return 0;
  const size_t slots = model.plan.max_sequences();
  return slots - std::min(slots, model.running);
}

Request* Router::Impl::FindRequest(RequestId id) {
  auto it = state_.requests.find(id);
  return it == state_.requests.end() ? nullptr : it->second.get();
}

Request* Router::Impl::FindRequestOf(const ModelRecord& model, RequestId id) {
  Request* request = FindRequest(id);
  return request != nullptr && request->model == model.name() ? request : nullptr;
}

void Router::Impl::CancelRequest(RequestId id) {
  if (Request* request = FindRequest(id); request != nullptr) {
    Forget(*request, true);
  } else if (!CancelCall(id)) {
    return ForgetClient(id);
  }
  Pump();
}

bool Router::Impl::CancelCall(uint64_t id) {
  const auto found = state_.calls.find(id);
  if (found == state_.calls.end()) return false;
  ModelRecord& model = *Find(found->second.model);
  model.calls.erase(id);
  model.unsent_calls.erase(id);
  state_.calls.erase(found);
  dirty_ = true;
  return true;
}

// Somebody who waits for a model, not for an answer of it.
void Router::Impl::ForgetClient(RequestId id) {
  for (SwitchOp& op : state_.switches) op.sinks.erase(id);
  for (const auto& [name, model] : state_.models) {
    model->unload_replies.erase(id);
    // As a prefetch that nobody watches.
    MasterSlot& master = model->master;
    if (master.waiting.erase(id) == 0 || master.phase != MasterSlot::Phase::kNone) continue;
    master.prefetch = model->launch_wanted = true;
  }
}

// Whether the worker takes more to look at: what it holds of that has no other bound.
bool Router::Impl::MaySend(const ModelRecord& model) const {
  return model.worker.looks.bytes() < options_.unseen_bytes;
}

// Hands over, in order, what came while the worker did not answer or had enough to look at. An
// unloading model takes nothing new.
void Router::Impl::SendUnsent(ModelRecord& model) {
  if (!Ready(model) || model.leave != Leave::kNo || model.lease.ends_worker) return;
  while (MaySend(model)) {
    const uint64_t call = model.unsent_calls.empty() ? UINT64_MAX : *model.unsent_calls.begin();
    const uint64_t request = model.unsent.empty() ? UINT64_MAX : *model.unsent.begin();
    if (call == request) return;  // there are none
    call < request ? SendCall(model, call) : SubmitTo(model, *FindRequest(request));
  }
}

void Router::Impl::SendCall(ModelRecord& model, uint64_t id) {
  const v1::ToWorker& message = state_.calls.at(id).message;
  model.unsent_calls.erase(id);
  NoteUnseen(model, id, message.SpaceUsedLong());
  Send(model, message);
}

void Router::Impl::SubmitTo(ModelRecord& model, Request& request) {
  v1::ToWorker message;
  v1::Submit& submit = *message.mutable_submit();
  submit.set_request_id(request.id);
  *submit.mutable_request() = request.request;
  if (request.deadline != 0) {
    submit.set_deadline_ns(static_cast<uint64_t>(std::max<Nanos>(request.deadline - Now(), 1)));
  }
  submit.set_patience_ns(
      static_cast<uint64_t>(std::max<Nanos>(request.arrived + MaxWait(model) - Now(), 1)));
  request.sent_at = Now();
  // Whoever decides in this round comes after this: that it has been sent asks for no other round.
  const bool dirty = dirty_, dirty_soon = dirty_soon_;
  SetStage(model, request, Stage::kSent);
  dirty_ = dirty;
  dirty_soon_ = dirty_soon;
  NoteUnseen(model, request.id, message.SpaceUsedLong());
  Send(model, std::move(message));
}

void Router::Impl::SetStage(ModelRecord& model, Request& request, Stage stage) {
  if (request.stage == stage) return;
  LeaveStage(model, request);
  EnterStage(model, request, stage);
}

// Nothing holds up the model's requests, and nothing of it is in motion.
bool Router::Impl::AtEase(const ModelRecord& model) const {
  return Ready(model) && model.leave == Leave::kNo && model.lease.motion == Motion::kRest &&
         Resident(model);
}

// What the model has to do has changed. As long as it is at ease that concerns nobody but who wants
// to come in; and as long as it has anything to do, it only weighs more or less against their
// waiting: that is decided soon, once for all that comes until then, as what a pinned one leaves
// is, which gives way to nobody. So its requests and their tokens do not wait for what the many
// models that want its place take to think about.
void Router::Impl::NoteWork(const ModelRecord& model) {
  status_changed_ = true;
  if (dirty_) return;
  const bool gives_way = DeviceOf(model).wanted && model.requests.empty() && !model.pinned;
  dirty_ = state_.draining || !AtEase(model) || gives_way;
  if (dirty_ || !DeviceOf(model).wanted) return;
  dirty_soon_ = true;
  if (state_.decide_soon.armed()) return;
  state_.decide_soon.Set(kDecideSoon, [this] {
    dirty_ |= dirty_soon_;
    Pump();
  });
}

// These two keep the model's counts right.
void Router::Impl::EnterStage(ModelRecord& model, Request& request, Stage stage) {
  request.stage = stage;
  NoteWork(model);
  if (stage == Stage::kRunning) {
    ++model.running;
    return;
  }
  // What is paused does not outlast its worker either.
  if (stage != Stage::kPaused || !model.lease.outlast_worker) {
    model.lease.outlasting.erase(request.id);
  }
  // A paused sequence queues anew: by its age it would drive out at once who drove it out.
  request.waiting_since = stage == Stage::kPaused ? Now() : request.arrived;
  if (stage == Stage::kPaused) request.meter_at = model.clock.meter.Reading(Now());
  model.ages.insert({request.meter_at, request.id});
  if (stage == Stage::kUnsent) model.unsent.insert(request.id);
  if (stage == Stage::kPaused) ++model.paused;
  if (stage != Stage::kAccepted && stage != Stage::kPaused) return;
  model.waiting.insert({-request.priority, request.waiting_since, request.id});
  model.since_sum += static_cast<uint64_t>(request.waiting_since);
}

void Router::Impl::LeaveStage(ModelRecord& model, Request& request) {
  const Stage stage = request.stage;
  NoteWork(model);
  if (stage == Stage::kRunning) {
    --model.running;
    return;
  }
  model.ages.erase({request.meter_at, request.id});
  if (stage == Stage::kUnsent) model.unsent.erase(request.id);
  if (stage == Stage::kPaused) --model.paused;
  if (stage != Stage::kAccepted && stage != Stage::kPaused) return;
  model.waiting.erase({-request.priority, request.waiting_since, request.id});
  model.since_sum -= static_cast<uint64_t>(request.waiting_since);
}

void Router::Impl::TellWaiting(Request& request) {
  if (request.told_waiting) return;
  request.told_waiting = true;
  v1::GenerateEvent event;
  event.mutable_waiting();
  request.sink->Write(std::move(event));
}

void Router::Impl::EndRequest(Request& request, const absl::Status& status, bool cancel) {
  std::shared_ptr<GenerateSink> sink = request.sink;
  Forget(request, cancel);
  sink->Finish(status);
}

void Router::Impl::BreakOff(Request& request, const absl::Status& why, bool cancel) {
  if (!request.has_tokens) return EndRequest(request, why, cancel);
  const std::string message(why.message());
  EndRequest(request, Reworded(why, absl::StatusCode::kAborted, message), cancel);
}

void Router::Impl::Forget(Request& request, bool cancel) {
  ModelRecord& model = *Find(request.model);
  if (cancel && request.stage != Stage::kUnsent && Ready(model)) {
    v1::ToWorker message;
    message.mutable_cancel()->set_request_id(request.id);
    Send(model, std::move(message));
  }
  LeaveStage(model, request);
  EndSuspension(request);
  const RequestId id = request.id;
  model.lease.outlasting.erase(id);
  model.requests.erase(id);
  if (--model.priorities[request.priority] == 0) model.priorities.erase(request.priority);
  ++model.finished;
  Touch(model);
  NoteWork(model);
  state_.requests.erase(id);
}

void Router::Impl::EndWaiting(ModelRecord& model, const absl::Status& why) {
  const std::set<RequestId> ids = model.requests;
  for (RequestId id : ids) {
    Request& request = *FindRequest(id);
    if (request.stage != Stage::kRunning) BreakOff(request, why, true);
  }
}

// The worker will end, but these shall not notice: they go to the next one.
void Router::Impl::TakeBackWaiting(ModelRecord& model) {
  for (RequestId id : model.requests) {
    Request& request = *FindRequest(id);
    if (request.stage != Stage::kSent && request.stage != Stage::kAccepted) continue;
    if (request.has_start) continue;
    if (Ready(model)) {
      v1::ToWorker message;
      message.mutable_cancel()->set_request_id(id);
      Send(model, std::move(message));
    }
    SetStage(model, request, Stage::kUnsent);
  }
}

void Router::Impl::StartCall(uint64_t id, const std::string& name, v1::ToWorker message,
                             std::function<void(absl::Status, const v1::FromWorker*)> reply) {
  absl::StatusOr<ModelRecord*> found = Resolve(name);
  absl::Status status = found.ok() ? RefusalOf(name, **found) : found.status();
  if (status.ok() && (*found)->calls.size() >= options_.queue_limit) {
    status = QueueFull(options_.queue_limit, "calls", (*found)->name());
  }
  if (!status.ok()) {
    reply(std::move(status), nullptr);
    return;
  }
  ModelRecord& model = **found;
  model.calls.insert(id);
  model.unsent_calls.insert(id);
  state_.calls[id] = Call{model.name(), std::move(message), std::move(reply)};
  dirty_ = true;
  Pump();
}

void Router::Impl::EndCalls(ModelRecord& model, const absl::Status& why) {
  const std::set<uint64_t> ids = std::move(model.calls);
  model.calls.clear();
  model.unsent_calls.clear();
  for (uint64_t id : ids) {
    auto reply = std::move(state_.calls.at(id).reply);
    state_.calls.erase(id);
    reply(why, nullptr);
  }
}

}  // namespace switchyard::supervisor
