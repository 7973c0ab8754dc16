#include "worker/requests.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/utf8.h"

namespace switchyard::worker {
namespace {

// A prompt of a megabyte must not hold up the small ones behind it.
constexpr int kValidators = 2;

// More than any context holds: their text is one message, on threads that serve everyone.
constexpr int kMostDetokenized = 1 << 20;

// `delay` later; 0: never.
Nanos After(Nanos now, uint64_t delay) {
  if (delay == 0) return 0;
  const auto most = static_cast<uint64_t>(std::numeric_limits<Nanos>::max() - now);
  return now + static_cast<Nanos>(std::min(delay, most));
}

template <typename Done>
void SetStatus(const absl::Status& status, Done& done) {
  done.set_code(static_cast<int32_t>(status.code()));
  done.set_message(ValidUtf8(std::string(status.message())));
}

}  // namespace

Requests::Requests(const OpenedModel& model, const Clock& clock, Outbox& outbox)
    : model_(model), clock_(clock), outbox_(outbox), validators_(kValidators), timer_(1) {}

void Requests::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    engine_ = nullptr;
  }
  validators_.Stop();
  timer_.Stop();
  std::lock_guard lock(mutex_);
  requests_.clear();
  waiting_.clear();
}

void Requests::Submit(v1::Submit command) {
  const RequestId id = command.request_id();
  const Nanos now = clock_.Now();
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    auto [place, is_new] = requests_.try_emplace(id);
    if (!is_new) return;  // the supervisor never uses a number twice
    place->second.arrived = now;
    place->second.deadline = After(now, command.deadline_ns());
    place->second.patient_until = After(now, command.patience_ns());
  }
  validators_.Post([this, command = std::move(command)] { Validate(command); });
}

void Requests::Validate(const v1::Submit& command) {
  Admit(command.request_id(),
        ValidateRequest(command.request(), *model_.tokenizer, model_.request_limits));
}

void Requests::Admit(RequestId id, absl::StatusOr<ValidRequest> valid) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  Request& request = requests_.at(id);
  if (request.cancelled) return Reject(id, absl::CancelledError("the request was cancelled"));
  if (!valid.ok()) return Reject(id, valid.status());
  if (request.deadline != 0 && request.deadline <= clock_.Now()) {
    return Reject(id, absl::DeadlineExceededError("the request's deadline has passed"));
  }

  request.sequence = std::move(valid->sequence);
  request.sequence.id = id;
  request.sequence.deadline = request.deadline;
  request.sequence.patient_until = request.patient_until;
  Generation::Options options;
  options.model = model_.model.name();
  options.prompt = request.sequence.prompt;
  options.prompt_logprobs = request.sequence.prompt_logprobs >= 0;
  options.logprobs = request.sequence.logprobs >= 0;
  options.stop_ids = request.sequence.stop_ids;
  options.stop = std::move(valid->stop);
  options.seed = request.sequence.sampling.seed;
  options.arrived = request.arrived;
  request.generation = std::make_unique<Generation>(*model_.tokenizer, std::move(options));

  v1::FromWorker message;
  message.mutable_accepted()->set_request_id(id);
  message.mutable_accepted()->set_prompt_tokens(
      static_cast<uint32_t>(request.sequence.prompt.size()));
  outbox_.Send(std::move(message));
  if (engine_ != nullptr) return Start(id, request);
  request.stage = Stage::kWaiting;
  request.place = places_++;
  waiting_.emplace(request.place, id);
  if (request.deadline != 0) {
    request.expiry = timer_.PostAt(request.deadline, [this, id] { ExpireWaiting(id); });
  }
}

void Requests::StopWaiting(Request& request) {
  if (request.stage != Stage::kWaiting) return;
  waiting_.erase(request.place);
  if (request.deadline != 0) timer_.Recall(request.expiry);
}

void Requests::Start(RequestId id, Request& request) {
  StopWaiting(request);
  request.stage = Stage::kRunning;
  ++running_;
  engine_->Submit(std::exchange(request.sequence, {}));
  if (request.suspended) engine_->Suspend(id, true);
}

void Requests::ExpireWaiting(RequestId id) {
  std::lock_guard lock(mutex_);
  auto found = requests_.find(id);
  if (found == requests_.end() || found->second.stage != Stage::kWaiting) return;
  Reject(id, absl::DeadlineExceededError("the request's deadline has passed"));
}

void Requests::Cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  auto found = requests_.find(id);
  if (stopped_ || found == requests_.end()) return;  // or it has ended in the meantime
  switch (found->second.stage) {
    case Stage::kValidating:
      found->second.cancelled = true;
      return;
    case Stage::kWaiting:
      return Reject(id, absl::CancelledError("the request was cancelled"));
    case Stage::kRunning:
      return engine_->Cancel(id);
  }
}

void Requests::Suspend(RequestId id, bool suspended) {
  std::lock_guard lock(mutex_);
  auto found = requests_.find(id);
  if (stopped_ || found == requests_.end()) return;
  found->second.suspended = suspended;
  if (found->second.stage == Stage::kRunning) engine_->Suspend(id, suspended);
}

void Requests::Attach(Engine* engine) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  engine_ = engine;
  while (!waiting_.empty()) {
    const RequestId id = waiting_.begin()->second;
    Start(id, requests_.at(id));
  }
}

bool Requests::Detach() {
  std::lock_guard lock(mutex_);
  if (running_ > 0) return false;
  engine_ = nullptr;
  return true;
}

void Requests::OnEvents(const std::vector<SequenceEvent>& events, const EngineStats& stats) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  v1::FromWorker message;
  std::vector<std::pair<RequestId, absl::Status>> rejected;
  for (const SequenceEvent& event : events) {
    auto found = requests_.find(event.id);
    if (found == requests_.end() || found->second.stage != Stage::kRunning) continue;
    Generation::Outcome outcome = found->second.generation->OnEvent(event);
    if (outcome.has_event) {
      v1::StepEvents::Event& out = *message.mutable_step()->add_events();
      out.set_request_id(event.id);
      *out.mutable_event() = std::move(outcome.event);
    }
    if (outcome.finish_engine) engine_->Finish(event.id);
    if (!outcome.ended) continue;
    --running_;
    if (outcome.rejected.ok()) {
      requests_.erase(found);
    } else {
      rejected.emplace_back(event.id, std::move(outcome.rejected));
    }
  }
  if (message.has_step() || !rejected.empty()) {
    message.mutable_step()->set_busy_ns(static_cast<uint64_t>(stats.busy));
    message.mutable_step()->set_kv_blocks_used(stats.kv_blocks_used);
    outbox_.Send(std::move(message));
  }
  for (const auto& [id, status] : rejected) Reject(id, status);
}

void Requests::Reject(RequestId id, const absl::Status& status) {
  StopWaiting(requests_.at(id));
  requests_.erase(id);
  v1::FromWorker message;
  message.mutable_rejected()->set_request_id(id);
  SetStatus(status, *message.mutable_rejected());
  outbox_.Send(std::move(message));
}

uint32_t Requests::waiting() const {
  std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(waiting_.size());
}

void Requests::Tokenize(v1::Tokenize command) {
  validators_.Post([this, command = std::move(command)] {
    EncodeOptions options;
    options.add_special_tokens = !command.request().no_special_tokens();
    auto ids = model_.tokenizer->Encode(command.request().text(), options);
    v1::FromWorker message;
    v1::TokenizeDone& done = *message.mutable_tokenize();
    done.set_request_id(command.request_id());
    SetStatus(ids.status(), done);
    if (ids.ok()) done.mutable_reply()->mutable_ids()->Add(ids->begin(), ids->end());
    outbox_.Send(std::move(message));
  });
}

namespace {

absl::StatusOr<std::string> Decoded(const Tokenizer& tokenizer,
                                    const v1::DetokenizeRequest& request) {
  const auto& ids = request.ids();
  if (ids.size() > kMostDetokenized) {
    return absl::InvalidArgumentError(
        absl::StrCat("ids: ", ids.size(), " of them, at most ", kMostDetokenized));
  }
  return tokenizer.Decode({ids.data(), static_cast<size_t>(ids.size())},
                          request.skip_special_tokens());
}

}  // namespace

void Requests::Detokenize(v1::Detokenize command) {
  validators_.Post([this, command = std::move(command)] {
    auto text = Decoded(*model_.tokenizer, command.request());
    v1::FromWorker message;
    v1::DetokenizeDone& done = *message.mutable_detokenize();
    done.set_request_id(command.request_id());
    SetStatus(text.status(), done);
    if (text.ok()) done.mutable_reply()->set_text(*std::move(text));
    outbox_.Send(std::move(message));
  });
}

}  // namespace switchyard::worker
