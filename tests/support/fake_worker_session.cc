#include "tests/support/fake_worker_session.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/master_seals.h"
#include "common/unique_fd.h"

namespace switchyard::testing {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr int kDescriptorSocket = 4;

std::chrono::microseconds StepTime() {
  const char* text = std::getenv("SWITCHYARD_FAKE_STEP_US");
  return std::chrono::microseconds(text != nullptr ? std::atoi(text) : 1000);
}

size_t Padding() {
  const char* text = std::getenv("SWITCHYARD_FAKE_PADDING");
  return text != nullptr ? std::atoi(text) : 0;
}

}  // namespace

v1::Plan FakePlan(const v1::Model& model) {
  v1::Plan plan;
  plan.set_model(model.name());
  plan.set_family("fake");
  plan.set_architecture("fake, no weights");
  plan.set_image_bytes(8 * kMiB);
  plan.set_chunk_bytes(kMiB);
  plan.set_chunks(8);
  plan.set_fixed_bytes(kMiB);
  plan.set_kv_bytes_per_token(256);
  plan.set_kv_smallest_bytes(kMiB);
  plan.set_kv_useful_bytes(4 * kMiB);
  plan.set_kv_granule_bytes(kMiB);
  plan.set_context_length(model.context_length() != 0 ? model.context_length() : 1 << 20);
  plan.set_max_sequences(model.max_sequences() != 0 ? model.max_sequences() : 256);
  plan.set_prefill_chunk(256);
  plan.set_vocabulary(1 << 20);
  plan.set_image_key(absl::StrCat("fake-", model.name()));
  plan.set_checkpoint_bytes(8 * kMiB);
  return plan;
}

Session::Session(v1::Plan plan, Faults faults, std::function<void(v1::FromWorker)> send)
    : plan_(std::move(plan)), faults_(std::move(faults)), send_(std::move(send)) {
  v1::FromWorker hello;
  hello.mutable_hello()->set_pid(::getpid());
  *hello.mutable_hello()->mutable_plan() = plan_;
  send_(std::move(hello));
  stepper_ = std::thread([this] { RunSteps(); });
}

Session::~Session() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  stepper_.join();
}

void Session::OnMessage(const v1::ToWorker& message) {
  std::lock_guard lock(mutex_);
  v1::FromWorker reply;
  switch (message.message_case()) {
    case v1::ToWorker::kUseMaster:
      return UseMaster(message.use_master());
    case v1::ToWorker::kDropMaster:
      reply.mutable_master()->set_master_id(message.drop_master().master_id());
      reply.mutable_master()->set_state(v1::MasterStatus::DROPPED);
      return send_(std::move(reply));
    case v1::ToWorker::kSetLease:
      return SetLease(message.set_lease());
    case v1::ToWorker::kSubmit:
      return Submit(message.submit());
    case v1::ToWorker::kCancel:
      sequences_.erase(message.cancel().request_id());
      return AcknowledgeIfDrained();
    case v1::ToWorker::kSuspend:
      if (auto it = sequences_.find(message.suspend().request_id()); it != sequences_.end()) {
        it->second.suspended = message.suspend().suspended();
      }
      return changed_.notify_all();
    case v1::ToWorker::kTokenize:  // a token is a byte
      reply.mutable_tokenize()->set_request_id(message.tokenize().request_id());
      for (unsigned char byte : message.tokenize().request().text()) {
        reply.mutable_tokenize()->mutable_reply()->add_ids(byte);
      }
      return send_(std::move(reply));
    case v1::ToWorker::kDetokenize:
      reply.mutable_detokenize()->set_request_id(message.detokenize().request_id());
      for (int32_t id : message.detokenize().request().ids()) {
        reply.mutable_detokenize()->mutable_reply()->mutable_text()->push_back(
            static_cast<char>(id));
      }
      return send_(std::move(reply));
    case v1::ToWorker::kShutdown:
      ::_exit(0);
    case v1::ToWorker::MESSAGE_NOT_SET:
      return;
  }
}

void Session::UseMaster(const v1::UseMaster& command) {
  // The descriptor was sent before the command, so that this does not wait.
  auto descriptor = ReceiveFd(kDescriptorSocket);
  v1::FromWorker reply;
  v1::MasterStatus* master = reply.mutable_master();
  master->set_master_id(command.master_id());
  master->set_bytes_total(command.bytes());
  const bool fails =
      faults_.At("master") || !descriptor.ok() || descriptor->second != command.master_id();
  if (!fails) (void)SealMaster(descriptor->first.get());
  master->set_state(fails ? v1::MasterStatus::FAILED : v1::MasterStatus::COMPLETE);
  if (fails) {
    master->set_error("the master cannot be filled, as told");
    master->set_code(static_cast<int>(absl::StatusCode::kInternal));
  } else {
    master->set_bytes_done(command.bytes());
    master->set_checksum(1);
  }
  send_(std::move(reply));
}

bool Session::Whole() const {
  return held_.weight_bytes() >= plan_.image_bytes() &&
         held_.kv_bytes() >= plan_.kv_smallest_bytes();
}

void Session::SetLease(const v1::SetLease& command) {
  const v1::LeaseBytes& lease = command.lease();
  const bool shrinks =
      lease.weight_bytes() < held_.weight_bytes() || lease.kv_bytes() < held_.kv_bytes();
  wanted_ = command;
  unacknowledged_ = true;
  if (!shrinks) {
    if (faults_.At("grow")) return Acknowledge("the lease cannot grow, as told");
    held_ = lease;
    for (auto& [id, sequence] : sequences_) sequence.paused = false;
    Acknowledge("");
    return changed_.notify_all();
  }
  faults_.At("shrink");
  if (command.in_flight() == v1::SetLease::PAUSE) {
    for (auto& [id, sequence] : sequences_) sequence.paused = true;
    held_ = lease;
    return Acknowledge("");
  }
  AcknowledgeIfDrained();
}

// A shrink that keeps the model whole, or that finds nothing running, is acknowledged at once.
void Session::AcknowledgeIfDrained() {
  if (!unacknowledged_) return;
  const bool running = std::any_of(sequences_.begin(), sequences_.end(),
                                   [](const auto& entry) { return entry.second.tokens > 0; });
  const bool stays_whole = wanted_.lease().weight_bytes() >= plan_.image_bytes() &&
                           wanted_.lease().kv_bytes() >= plan_.kv_smallest_bytes();
  if (running && !stays_whole) return;
  held_ = wanted_.lease();
  Acknowledge("");
}

void Session::Acknowledge(const std::string& error) {
  unacknowledged_ = false;
  v1::FromWorker reply;
  v1::LeaseStatus* status = reply.mutable_lease();
  status->set_epoch(wanted_.epoch());
  *status->mutable_held() = held_;
  status->set_settled(true);
  status->set_error(error);
  send_(std::move(reply));
}

void Session::Submit(const v1::Submit& command) {
  v1::FromWorker reply;
  const v1::GenerateRequest& request = command.request();
  const size_t tokens = request.has_ids() ? request.ids().ids_size() : request.text().size();
  if (faults_.At("submit") || tokens == 0) {
    reply.mutable_rejected()->set_request_id(command.request_id());
    reply.mutable_rejected()->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
    reply.mutable_rejected()->set_message("the prompt is empty");
    return send_(std::move(reply));
  }
  Sequence sequence;
  sequence.request = request;
  sequence.prompt_tokens = static_cast<uint32_t>(tokens);
  sequence.max_tokens = request.stop().max_tokens() != 0 ? request.stop().max_tokens() : 16;
  sequences_.emplace(command.request_id(), std::move(sequence));
  reply.mutable_accepted()->set_request_id(command.request_id());
  reply.mutable_accepted()->set_prompt_tokens(static_cast<uint32_t>(tokens));
  send_(std::move(reply));
  changed_.notify_all();
}

bool Session::CanStep() const {
  // A draining worker finishes what runs and starts nothing.
  return Whole() && std::any_of(sequences_.begin(), sequences_.end(), [&](const auto& entry) {
           const Sequence& sequence = entry.second;
           return !sequence.suspended && !sequence.paused &&
                  (!unacknowledged_ || sequence.tokens > 0);
         });
}

v1::FromWorker Session::Step() {
  v1::FromWorker message;
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    Sequence& sequence = it->second;
    if (sequence.suspended || sequence.paused || (unacknowledged_ && sequence.tokens == 0)) {
      ++it;
      continue;
    }
    AddToken(it->first, &sequence, message.mutable_step());
    it = sequence.tokens == sequence.max_tokens ? sequences_.erase(it) : std::next(it);
  }
  const std::chrono::nanoseconds busy = ++steps_ * StepTime();
  message.mutable_step()->set_busy_ns(static_cast<uint64_t>(busy.count()));
  return message;
}

void Session::AddToken(uint64_t id, Sequence* sequence, v1::StepEvents* events) {
  v1::StepEvents::Event* event = events->add_events();
  event->set_request_id(id);
  v1::GenerateEvent* generated = event->mutable_event();
  if (sequence->tokens == 0) {
    generated->mutable_start()->set_model(plan_.model());
    for (uint32_t i = 0; i < sequence->prompt_tokens; ++i) {
      generated->mutable_start()->add_prompt_ids(i);
    }
  }
  generated->add_ids(sequence->tokens);
  static const std::string kPadding(Padding(), '.');
  generated->set_text(absl::StrCat("t", sequence->tokens, kPadding, " "));
  if (++sequence->tokens < sequence->max_tokens) return;
  v1::GenerateEvent::Finish* finish = generated->mutable_finish();
  finish->set_reason(v1::LENGTH);
  finish->mutable_usage()->set_prompt_tokens(sequence->prompt_tokens);
  finish->mutable_usage()->set_completion_tokens(sequence->tokens);
}

void Session::RunSteps() {
  const auto step_time = StepTime();
  auto next = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!ending_) {
    changed_.wait(lock, [&] { return ending_ || CanStep(); });
    if (ending_) return;
    faults_.At("token");
    send_(Step());
    AcknowledgeIfDrained();
    next = std::max(next + step_time, std::chrono::steady_clock::now());
    // Not a wait for anything: the time that a step takes.
    changed_.wait_until(lock, next, [&] { return ending_; });
  }
}

}  // namespace switchyard::testing
