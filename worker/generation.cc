#include "worker/generation.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::worker {
namespace {

double Milliseconds(Nanos from, Nanos to) {
  if (from == 0 || to <= from) return 0;
  return static_cast<double>(to - from) / kMillisecond;
}

void AddLogprob(const TokenResult& token, v1::TokenLogprob& out) {
  out.set_id(token.id);
  out.set_logprob(token.logprob);
  for (size_t i = 0; i < token.top_ids.size(); ++i) {
    v1::TokenLogprob::Alternative& alternative = *out.add_top();
    alternative.set_id(token.top_ids[i]);
    alternative.set_logprob(token.top_logprobs[i]);
  }
}

// Why a sequence ended without a finish; OK for the others.
absl::Status Rejection(const SequenceEvent& event, const std::string& model) {
  switch (event.end) {
    case SequenceEnd::kCancelled:
      return absl::CancelledError("the request was cancelled");
    case SequenceEnd::kDeadline:
      return absl::DeadlineExceededError("the request's deadline has passed");
    case SequenceEnd::kError:
      return absl::InternalError(event.error);
    case SequenceEnd::kNotNumbers:
      // Not our fault, nor of what was asked: what we were given cannot be computed with.
      return absl::DataLossError(absl::StrCat(
          model,
          ": its logits are not numbers: the checkpoint's weights are damaged, or overflow in this "
          "format; compare its files with their source, and fetch them again"));
    default:
      return absl::OkStatus();
  }
}

}  // namespace

Generation::Generation(const Tokenizer& tokenizer, Options options)
    : options_(std::move(options)),
      decoder_(tokenizer, /*skip_special_tokens=*/true),
      matcher_(options_.stop) {}

Generation::Outcome Generation::OnEvent(const SequenceEvent& event) {
  Outcome outcome;
  v1::GenerateEvent& out = outcome.event;
  // A pause in the middle of the prompt has nothing to tell yet but itself.
  const bool tells = !event.tokens.empty() || !event.prompt.empty();
  outcome.ended = event.end != SequenceEnd::kNone;
  if (!matcher_.stopped()) outcome.rejected = Rejection(event, options_.model);
  const bool finishes = outcome.ended && outcome.rejected.ok();
  if (!started_ && (tells || finishes)) AddStart(event, out);
  AddTokens(event, out);
  if (event.paused && !event.resumed) out.mutable_waiting()->set_paused(true);
  if (finishes) AddFinish(event, out);
  if (matcher_.stopped() && !finishing_) {
    finishing_ = true;
    outcome.finish_engine = !outcome.ended;
  }
  outcome.has_event = out.ByteSizeLong() > 0;
  return outcome;
}

void Generation::AddStart(const SequenceEvent& event, v1::GenerateEvent& out) {
  started_ = true;
  v1::GenerateEvent::Start& start = *out.mutable_start();
  start.set_model(options_.model);
  start.mutable_prompt_ids()->Add(options_.prompt.begin(), options_.prompt.end());
  if (!options_.prompt_logprobs) return;
  for (const TokenResult& token : event.prompt) AddLogprob(token, *start.add_prompt_logprobs());
  if (start.prompt_logprobs_size() == 0) return;
  v1::TokenLogprob& first = *start.mutable_prompt_logprobs(0);
  first.set_logprob(std::numeric_limits<float>::quiet_NaN());
  first.clear_top();
}

void Generation::AddTokens(const SequenceEvent& event, v1::GenerateEvent& out) {
  for (const TokenResult& token : event.tokens) {
    // What was drawn before the engine learned of the stop string.
    if (matcher_.stopped()) return;
    if (std::binary_search(options_.stop_ids.begin(), options_.stop_ids.end(), token.id)) return;
    out.add_ids(token.id);
    if (options_.logprobs) AddLogprob(token, *out.add_logprobs());
    ++completion_tokens_;
    out.mutable_text()->append(matcher_.Push(decoder_.Push(token.id)));
  }
}

void Generation::AddFinish(const SequenceEvent& event, v1::GenerateEvent& out) {
  if (!matcher_.stopped()) {
    out.mutable_text()->append(matcher_.Push(decoder_.Finish()));
    if (!matcher_.stopped()) out.mutable_text()->append(matcher_.Finish());
  }
  v1::GenerateEvent::Finish& finish = *out.mutable_finish();
  const bool stop = matcher_.stopped() || event.end == SequenceEnd::kStop;
  finish.set_reason(stop ? v1::STOP : v1::LENGTH);
  finish.mutable_usage()->set_prompt_tokens(static_cast<uint32_t>(options_.prompt.size()));
  finish.mutable_usage()->set_completion_tokens(completion_tokens_);
  finish.set_seed(options_.seed);
  v1::Timings& timings = *finish.mutable_timings();
  const SequenceTimes& times = event.times;
  timings.set_queue_ms(Milliseconds(options_.arrived, times.prefill_started));
  timings.set_prefill_ms(Milliseconds(times.prefill_started, times.first_token));
  timings.set_decode_ms(Milliseconds(times.first_token, times.last_token));
  if (completion_tokens_ > 1 && timings.decode_ms() > 0) {
    timings.set_tokens_per_second((completion_tokens_ - 1) * 1000.0 / timings.decode_ms());
  }
}

}  // namespace switchyard::worker
