#include "cli/generation.h"

#include <gtest/gtest.h>

#include <cmath>

namespace switchyard::cli {
namespace {

namespace v1 = ::switchyard::v1;

v1::GenerateEvent First() {
  v1::GenerateEvent event;
  event.set_text("a");
  event.add_ids(1);
  event.mutable_start()->set_model("austen");
  event.mutable_start()->add_prompt_ids(7);
  event.mutable_start()->add_prompt_ids(8);
  event.mutable_start()->add_prompt_logprobs()->set_logprob(NAN);
  v1::TokenLogprob* second = event.mutable_start()->add_prompt_logprobs();
  second->set_logprob(-0.5);
  second->add_top()->set_id(9);
  second->mutable_top(0)->set_logprob(-0.25);
  return event;
}

TEST(Generation, AddsUpToTheDocumentOfTheContract) {
  Generation generation;
  generation.Add(First());
  v1::GenerateEvent last;
  last.set_text("b\xFF");  // never from our server; must not throw
  last.add_ids(2);
  last.mutable_finish()->set_reason(v1::STOP);
  last.mutable_finish()->mutable_usage()->set_prompt_tokens(2);
  last.mutable_finish()->mutable_usage()->set_completion_tokens(2);
  last.mutable_finish()->set_seed(18446744073709551615u);
  generation.Add(last);
  EXPECT_EQ(generation.ToJson().dump(-1, ' ', false, Json::error_handler_t::replace),
            "{\"model\":\"austen\",\"text\":\"ab\xEF\xBF\xBD\",\"token_ids\":[1,2],\"logprobs\":[],"
            "\"prompt_token_ids\":[7,8],\"prompt_logprobs\":[null,-0.5],"
            "\"prompt_top\":[[],[{\"id\":9,\"logprob\":-0.25}]],\"finish_reason\":\"stop\","
            "\"error\":null,\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":2},"
            "\"timings\":{\"queue_ms\":0.0,\"swap_ms\":0.0,\"prefill_ms\":0.0,\"decode_ms\":0.0,"
            "\"tokens_per_second\":0.0},\"seed\":18446744073709551615}");
}

TEST(Generation, CancelledTellsWhatThereIs) {
  Generation generation;
  generation.Add(First());
  generation.Cancel(7);
  const Json document = generation.ToJson();
  EXPECT_EQ(document["finish_reason"], "cancelled");
  EXPECT_EQ(document["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(document["usage"]["completion_tokens"], 1);
  EXPECT_EQ(document["seed"], 7);
}

TEST(Generation, BrokenOffTellsWhatThereIsAndWhy) {
  Generation generation;
  v1::GenerateEvent waits;
  waits.mutable_waiting();
  generation.Add(waits);
  EXPECT_FALSE(generation.begun());
  generation.Add(First());
  EXPECT_TRUE(generation.begun());
  generation.BreakOff(absl::AbortedError("the worker was lost"), 7);
  const Json document = generation.ToJson();
  EXPECT_EQ(document["text"], "a");
  EXPECT_EQ(document["token_ids"].dump(), "[1]");
  EXPECT_TRUE(document["finish_reason"].is_null());
  EXPECT_EQ(document["error"].dump(), R"({"code":"ABORTED","message":"the worker was lost"})");
  EXPECT_EQ(document["usage"]["prompt_tokens"], 2);
  EXPECT_EQ(document["usage"]["completion_tokens"], 1);
  EXPECT_EQ(document["seed"], 7);
}

TEST(Generation, CancelledBeforeAnythingCame) {
  Generation generation;
  generation.Cancel(std::nullopt);
  EXPECT_EQ(generation.ToJson()["token_ids"], Json::array());
  EXPECT_TRUE(generation.ToJson()["seed"].is_null());  // the server drew it, and did not tell
}

}  // namespace
}  // namespace switchyard::cli
