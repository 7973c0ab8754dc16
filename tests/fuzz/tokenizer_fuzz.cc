// A tokenizer.json, and behind a zero byte a text to encode with it.

#include <vector>

#include "tests/fuzz/target.h"
#include "worker/tokenizer/tokenizer.h"

using switchyard::worker::StreamingDecoder;
using switchyard::worker::Tokenizer;

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [json, text] = switchyard::testing::SplitAtZero(data, size);
  const auto tokenizer = Tokenizer::Parse(json, "tokenizer.json");
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->Encode(text);
  if (!ids.ok()) return 0;
  const auto whole = (*tokenizer)->Decode(*ids, false);
  if (!whole.ok()) return 0;  // a template may name an id that no token has
  StreamingDecoder decoder(**tokenizer, false);
  std::string parts;
  for (const int32_t id : *ids) parts += decoder.Push(id);
  parts += decoder.Finish();
  SY_CHECK(parts == *whole);
  return 0;
}
