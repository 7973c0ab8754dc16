// What workers say of requests.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

absl::Status StatusFromWorker(int code, const std::string& message) {
  if (code <= 0 || code > 16) return absl::InternalError(message);
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

// The worker cannot tell waiting for the model from waiting for its turn; and it does not know of
// the time before it was asked.
void CompleteTimings(const Request& request, v1::Timings* timings) {
  auto ms = [](Nanos n) { return static_cast<double>(std::max<Nanos>(n, 0)) / kMillisecond; };
  const double waited =
      timings->queue_ms() + timings->swap_ms() + ms(request.sent_at - request.arrived);
  const double swap = request.resident_at == 0 || request.accepted_at == 0
                          ? 0
                          : ms(request.resident_at - request.accepted_at);
  timings->set_swap_ms(std::min(swap, waited));
  timings->set_queue_ms(waited - timings->swap_ms());
}

}  // namespace

void Router::Impl::OnAccepted(ModelRecord& model, const v1::Accepted& accepted) {
  NoteLook(model, accepted.request_id());
  if (accepted.request_id() == model.probe.id) return OnProbeAccepted(model);
  Request* request = FindRequestOf(model, accepted.request_id());
  if (request == nullptr || request->stage != Stage::kSent) return;
  SetStage(model, *request, Stage::kAccepted);
  request->accepted_at = Now();
  model.switched = false;
  if (Resident(model)) {
    request->resident_at = Now();
  } else {
    TellWaiting(*request);
  }
}

void Router::Impl::OnRejected(ModelRecord& model, const v1::Rejected& rejected) {
  NoteLook(model, rejected.request_id());
  if (rejected.request_id() == model.probe.id) return OnProbeRejected(model, rejected);
  Request* request = FindRequestOf(model, rejected.request_id());
  // Unsent: it was taken back, and this confirms it.
  if (request == nullptr || request->stage == Stage::kUnsent) return;
  if (IsFault(rejected)) NoteFault(model, rejected.message());
  EndRequest(*request, StatusFromWorker(rejected.code(), rejected.message()), false);
}

void Router::Impl::OnSteps(ModelRecord& model, const v1::StepEvents& steps) {
  NoteBusy(model, steps.busy_ns());
  model.worker.heartbeat.set_kv_blocks_used(steps.kv_blocks_used());
  status_changed_ = true;
  for (const v1::StepEvents::Event& event : steps.events()) {
    if (event.request_id() == model.probe.id) {
      OnProbeEvent(model, event.event());
      continue;
    }
    Request* request = FindRequestOf(model, event.request_id());
    if (request == nullptr || request->stage == Stage::kUnsent) continue;
    OnEvent(model, *request, event.event());
  }
}

void Router::Impl::OnEvent(ModelRecord& model, Request& request, const v1::GenerateEvent& event) {
  const bool only_waits = OnlyWaits(event);
  if (only_waits && !event.waiting().paused() && request.told_waiting) return;
  if (only_waits) {
    if (event.waiting().paused() && request.stage == Stage::kRunning) {
      SetStage(model, request, Stage::kPaused);
    } else if (event.waiting().paused() && !model.lease.outlast_worker) {
      model.lease.outlasting.erase(request.id);  // in the middle of its prompt
    }
    request.told_waiting = true;
    request.sink->Write(event);
    return;
  }
  if (request.stage != Stage::kRunning) {
    SetStage(model, request, Stage::kRunning);
    // Its prompt ran behind the last weights, whose arrival has not been told yet.
    if (request.resident_at == 0) request.resident_at = Now();
    request.request = v1::GenerateRequest();  // Clear would keep its memory
  }
  if (event.has_start() && !request.has_start) {
    model.prompt_tokens += static_cast<uint64_t>(event.start().prompt_ids_size());
  }
  request.has_start |= event.has_start();
  request.has_tokens |= event.ids_size() > 0 || !event.text().empty();
  const auto tokens = static_cast<uint64_t>(event.ids_size());
  model.tokens += tokens;
  request.tokens_left -= std::min(tokens, request.tokens_left);
  if (event.ids_size() > 0) NoteProof(model);
  status_changed_ = true;
  if (!event.has_finish()) {
    // Paused while a step was on its way: its last token comes with the news.
    if (event.waiting().paused()) {
      SetStage(model, request, Stage::kPaused);
      request.told_waiting = true;
    }
    request.sink->Write(event);
    CheckSink(model, request);
    return;
  }
  v1::GenerateEvent last = event;
  CompleteTimings(request, last.mutable_finish()->mutable_timings());
  request.sink->Write(std::move(last));
  // Whatever fails from now on, it is not the model that cannot work.
  model.failures.in_a_row = model.failures.loads = 0;
  model.failures.stands = false;
  EndRequest(request, absl::OkStatus(), false);
}

// A client that reads too slowly holds up its own sequence only, and not for ever. What waits for
// it is kept here, so there are only so many of them.
void Router::Impl::CheckSink(ModelRecord& model, Request& request) {
  if (request.suspended || request.sink->buffered_bytes() <= options_.sink_limit_bytes) return;
  request.suspended = true;
  request.suspended_at = Now();
  state_.suspended.emplace(request.suspended_at, request.id);
  v1::ToWorker message;
  message.mutable_suspend()->set_request_id(request.id);
  message.mutable_suspend()->set_suspended(true);
  Send(model, std::move(message));
  const RequestId id = request.id;
  Arm(request.sink_alarm, options_.sink_timeout, [this, id] {
    if (Request* stalled = FindRequest(id)) EndStalled(*stalled, "");
  });
  if (state_.suspended.size() > options_.most_suspended) {
    EndStalled(*FindRequest(state_.suspended.begin()->second),
               absl::StrCat(", as ", options_.most_suspended, " others did"));
  }
}

void Router::Impl::EndStalled(Request& request, const std::string& beside) {
  EndRequest(request,
             absl::ResourceExhaustedError(absl::StrCat(
                 "the client read nothing for ", (Now() - request.suspended_at) / kSecond,
                 " s while ", HumanBytes(options_.sink_limit_bytes), " waited for it", beside)),
             true);
}

void Router::Impl::EndSuspension(Request& request) {
  state_.suspended.erase({request.suspended_at, request.id});
  request.suspended = false;
  request.sink_alarm.Clear();
}

void Router::Impl::OnSinkDrained(RequestId id) {
  Request* request = FindRequest(id);
  if (request == nullptr || !request->suspended) return;
  EndSuspension(*request);
  ModelRecord& model = *Find(request->model);
  if (!Ready(model)) return;
  v1::ToWorker message;
  message.mutable_suspend()->set_request_id(id);
  message.mutable_suspend()->set_suspended(false);
  Send(model, std::move(message));
}

void Router::Impl::OnCallDone(ModelRecord& model, uint64_t id, int code, const std::string& message,
                              const v1::FromWorker& from) {
  NoteLook(model, id);
  auto it = state_.calls.find(id);
  if (it == state_.calls.end() || it->second.model != model.name()) return;
  auto reply = std::move(it->second.reply);
  state_.calls.erase(it);
  model.calls.erase(id);
  model.unsent_calls.erase(id);
  dirty_ = true;
  reply(code == 0 ? absl::OkStatus() : StatusFromWorker(code, message), &from);
}

}  // namespace switchyard::supervisor
