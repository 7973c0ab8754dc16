// A GenerateRequest as bytes from a client: parsed, tokenized, held against the limits.

#include "switchyard/v1/inference.pb.h"
#include "tests/fuzz/target.h"
#include "worker/validate.h"

namespace switchyard::worker {
namespace {

constexpr int32_t kContext = 64;

const Tokenizer& SmallTokenizer() {
  static const auto tokenizer =
      Tokenizer::Load(SWITCHYARD_SOURCE_DIR "/tests/golden/models/qwen3_tied/tokenizer.json");
  SY_CHECK(tokenizer.ok());
  return **tokenizer;
}

void Validate(const uint8_t* data, size_t size) {
  v1::GenerateRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) return;
  RequestLimits limits;
  limits.context_length = kContext;
  limits.vocabulary = SmallTokenizer().vocab_size();
  const auto valid = ValidateRequest(request, SmallTokenizer(), limits);
  if (!valid.ok()) return;
  // What the engine relies on.
  const SequenceRequest& sequence = valid->sequence;
  SY_CHECK(!sequence.prompt.empty() && sequence.max_tokens > 0);
  SY_CHECK(sequence.prompt.size() + static_cast<size_t>(sequence.max_tokens) <= kContext);
  for (const int32_t id : sequence.prompt) SY_CHECK(id >= 0 && id < limits.vocabulary);
  const SamplingParams& sampling = sequence.sampling;
  SY_CHECK(sampling.temperature >= 0 && sampling.temperature <= 100);
  SY_CHECK(sampling.top_p > 0 && sampling.top_p <= 1 && sampling.top_k >= 0);
  SY_CHECK(sampling.repetition_penalty > 0);
}

}  // namespace
}  // namespace switchyard::worker

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  switchyard::worker::Validate(data, size);
  return 0;
}
