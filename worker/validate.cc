#include "worker/validate.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/utf8.h"

namespace switchyard::worker {
namespace {

constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr int kMaxStopIds = 64;
constexpr uint32_t kMaxLogprobs = 20;
constexpr int32_t kMaxPriority = 100;

template <typename... Args>
absl::Status Invalid(const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat(args...));
}

// With the digits that tell it from its neighbours: 100.00001 is not 100.
std::string Shown(float value) {
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

// Written so that NaN fails.
absl::Status InRange(const char* field, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(field, " is ", Shown(value), ", not within ", low, " to ", high);
}

absl::Status AboveZero(const char* field, float value, float high) {
  if (value > 0 && value <= high) return absl::OkStatus();
  return Invalid(field, " is ", Shown(value), ", not above 0 and at most ", high);
}

uint64_t FreshSeed() {
  static thread_local std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

absl::StatusOr<SamplingParams> ReadSampling(const v1::Sampling& from,
                                            const GenerationConfig& defaults, int32_t vocabulary) {
  SamplingParams to;
  to.temperature = from.has_temperature() ? from.temperature() : defaults.temperature;
  to.top_p = from.has_top_p() ? from.top_p() : defaults.top_p;
  to.min_p = from.has_min_p() ? from.min_p() : defaults.min_p;
  to.repetition_penalty =
      from.has_repetition_penalty() ? from.repetition_penalty() : defaults.repetition_penalty;
  to.presence_penalty = from.presence_penalty();
  to.frequency_penalty = from.frequency_penalty();
  RETURN_IF_ERROR(InRange("sampling.temperature", to.temperature, 0, 100));
  RETURN_IF_ERROR(AboveZero("sampling.top_p", to.top_p, 1));
  RETURN_IF_ERROR(InRange("sampling.min_p", to.min_p, 0, 1));
  RETURN_IF_ERROR(AboveZero("sampling.repetition_penalty", to.repetition_penalty, 100));
  RETURN_IF_ERROR(InRange("sampling.presence_penalty", to.presence_penalty, -100, 100));
  RETURN_IF_ERROR(InRange("sampling.frequency_penalty", to.frequency_penalty, -100, 100));
  const uint32_t top_k =
      from.has_top_k() ? from.top_k() : static_cast<uint32_t>(std::max(defaults.top_k, 0));
  // As many as there are tokens, or more: nothing is left out.
  to.top_k = top_k >= static_cast<uint32_t>(vocabulary) ? 0 : static_cast<int32_t>(top_k);
  to.seed = from.has_seed() ? from.seed() : FreshSeed();
  return to;
}

absl::StatusOr<std::vector<int32_t>> ReadPrompt(const v1::GenerateRequest& request,
                                                const Tokenizer& tokenizer,
                                                const RequestLimits& limits) {
  std::vector<int32_t> ids;
  if (request.has_ids()) {
    ids.assign(request.ids().ids().begin(), request.ids().ids().end());
  } else if (!request.text().empty()) {
    EncodeOptions options;
    options.add_special_tokens = !request.no_special_tokens();
    auto encoded = tokenizer.Encode(request.text(), options);
    if (!encoded.ok()) {
      return absl::Status(encoded.status().code(),
                          absl::StrCat("text: ", encoded.status().message()));
    }
    ids = *std::move(encoded);
  }
  if (ids.empty()) return Invalid("prompt is empty; at least one token is needed");
  if (ids.size() >= static_cast<size_t>(limits.context_length)) {
    return Invalid("prompt has ", ids.size(), " tokens, which leaves no room for an answer in the ",
                   limits.context_length, " tokens of the context");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= limits.vocabulary) {
      return Invalid("prompt token ", i, " is id ", ids[i], ", not within 0 to ",
                     limits.vocabulary - 1, ", the model's vocabulary");
    }
  }
  return ids;
}

absl::Status ReadStops(const v1::StopConditions& from, const RequestLimits& limits,
                       ValidRequest& to) {
  if (from.stop_size() > kMaxStops) {
    return Invalid("stop.stop has ", from.stop_size(), " strings, at most ", kMaxStops);
  }
  for (const std::string& stop : from.stop()) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return Invalid("stop.stop holds a string of ", stop.size(), " bytes, not 1 to ",
                     kMaxStopBytes);
    }
    if (size_t at = FindInvalidUtf8(stop); at != std::string::npos) {
      return Invalid("stop.stop holds a string that is not UTF-8 at byte ", at);
    }
    to.stop.push_back(stop);
  }
  if (from.stop_ids_size() > kMaxStopIds) {
    return Invalid("stop.stop_ids has ", from.stop_ids_size(), " ids, at most ", kMaxStopIds);
  }
  std::vector<int32_t>& ids = to.sequence.stop_ids;
  if (!from.ignore_eos()) ids = limits.defaults.eos_ids;
  for (int32_t id : from.stop_ids()) {
    if (id < 0 || id >= limits.vocabulary) {
      return Invalid("stop.stop_ids holds ", id, ", not within 0 to ", limits.vocabulary - 1,
                     ", the model's vocabulary");
    }
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return absl::OkStatus();
}

absl::Status ReadLogprobs(const v1::LogprobOptions& from, SequenceRequest& to) {
  if (from.logprobs() > kMaxLogprobs) {
    return Invalid("logprobs.logprobs is ", from.logprobs(), ", at most ", kMaxLogprobs);
  }
  if (from.prompt_logprobs() > kMaxLogprobs) {
    return Invalid("logprobs.prompt_logprobs is ", from.prompt_logprobs(), ", at most ",
                   kMaxLogprobs);
  }
  to.logprobs = from.has_logprobs() ? static_cast<int32_t>(from.logprobs()) : -1;
  to.prompt_logprobs =
      from.has_prompt_logprobs() ? static_cast<int32_t>(from.prompt_logprobs()) : -1;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ValidRequest> ValidateRequest(const v1::GenerateRequest& request,
                                             const Tokenizer& tokenizer,
                                             const RequestLimits& limits) {
  ValidRequest valid;
  SequenceRequest& sequence = valid.sequence;
  ASSIGN_OR_RETURN(sequence.sampling,
                   ReadSampling(request.sampling(), limits.defaults, limits.vocabulary));
  RETURN_IF_ERROR(ReadStops(request.stop(), limits, valid));
  RETURN_IF_ERROR(ReadLogprobs(request.logprobs(), sequence));
  if (request.priority() < -kMaxPriority || request.priority() > kMaxPriority) {
    return Invalid("priority is ", request.priority(), ", not within ", -kMaxPriority, " to ",
                   kMaxPriority);
  }
  sequence.priority = request.priority();
  // Last, since it is the part that may take long.
  ASSIGN_OR_RETURN(sequence.prompt, ReadPrompt(request, tokenizer, limits));
  const uint32_t room =
      static_cast<uint32_t>(limits.context_length) - static_cast<uint32_t>(sequence.prompt.size());
  const uint32_t asked = request.stop().max_tokens();
  sequence.max_tokens = static_cast<int32_t>(asked == 0 ? room : std::min(asked, room));
  return valid;
}

}  // namespace switchyard::worker
