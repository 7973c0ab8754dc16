#include "cli/generation.h"

namespace switchyard::cli {
namespace {

namespace v1 = ::switchyard::v1;

Json TopJson(const v1::TokenLogprob& logprob) {
  Json top = Json::array();
  for (const auto& alternative : logprob.top()) {
    top.push_back({{"id", alternative.id()}, {"logprob", alternative.logprob()}});
  }
  return top;
}

Json LogprobJson(const v1::TokenLogprob& logprob) {
  return {{"id", logprob.id()}, {"logprob", logprob.logprob()}, {"top", TopJson(logprob)}};
}

const char* ReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::LENGTH:
      return "length";
    case v1::STOP:
      return "stop";
    default:
      return "cancelled";
  }
}

Json ErrorJson(const absl::Status& error) {
  if (error.ok()) return nullptr;
  return {{"code", absl::StatusCodeToString(error.code())},
          {"message", std::string(error.message())}};
}

}  // namespace

void Generation::Add(const v1::GenerateEvent& event) {
  text_ += event.text();
  ids_.insert(ids_.end(), event.ids().begin(), event.ids().end());
  logprobs_.insert(logprobs_.end(), event.logprobs().begin(), event.logprobs().end());
  if (event.has_start()) start_ = event.start();
  begun_ |= event.has_start();
  if (!event.has_finish()) return;
  finish_ = event.finish();
  seed_ = finish_.seed();
}

void Generation::Cancel(std::optional<uint64_t> seed) {
  finish_.set_reason(v1::FINISH_CANCELLED);
  EndEarly(seed);
}

void Generation::BreakOff(const absl::Status& why, std::optional<uint64_t> seed) {
  error_ = why;
  EndEarly(seed);
}

void Generation::EndEarly(std::optional<uint64_t> seed) {
  if (!seed_) seed_ = seed;
  finish_.mutable_usage()->set_prompt_tokens(start_.prompt_ids_size());
  finish_.mutable_usage()->set_completion_tokens(static_cast<uint32_t>(ids_.size()));
}

Json Generation::ToJson() const {
  Json logprobs = Json::array(), prompt_ids = Json::array();
  Json prompt_logprobs = Json::array(), prompt_top = Json::array();
  for (const v1::TokenLogprob& logprob : logprobs_) logprobs.push_back(LogprobJson(logprob));
  for (int32_t id : start_.prompt_ids()) prompt_ids.push_back(id);
  // The first token has none: NaN, which is null in JSON.
  for (const auto& logprob : start_.prompt_logprobs()) {
    prompt_logprobs.push_back(logprob.logprob());
    prompt_top.push_back(TopJson(logprob));
  }
  const v1::Timings& timings = finish_.timings();
  return {{"model", start_.model()},
          {"text", text_},
          {"token_ids", ids_},
          {"logprobs", logprobs},
          {"prompt_token_ids", prompt_ids},
          {"prompt_logprobs", prompt_logprobs},
          {"prompt_top", prompt_top},
          {"finish_reason", error_.ok() ? Json(ReasonName(finish_.reason())) : Json()},
          {"error", ErrorJson(error_)},
          {"usage",
           {{"prompt_tokens", finish_.usage().prompt_tokens()},
            {"completion_tokens", finish_.usage().completion_tokens()}}},
          {"timings",
           {{"queue_ms", timings.queue_ms()},
            {"swap_ms", timings.swap_ms()},
            {"prefill_ms", timings.prefill_ms()},
            {"decode_ms", timings.decode_ms()},
            {"tokens_per_second", timings.tokens_per_second()}}},
          {"seed", seed_ ? Json(*seed_) : Json()}};
}

}  // namespace switchyard::cli
