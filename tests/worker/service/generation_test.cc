#include "worker/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "tests/worker/service/support.h"

namespace switchyard::worker {
namespace {

using ::testing::ElementsAre;

constexpr int32_t kEnd = 26;

class GenerationTest : public ::testing::Test {
 protected:
  GenerationTest() : tokenizer_(LetterTokenizer()) {
    options_.model = "m";
    options_.prompt = {0, 1};
    options_.stop_ids = {kEnd};
    options_.seed = 7;
    options_.arrived = 1 * kMillisecond;
  }

  static SequenceEvent Tokens(const std::string& text) {
    SequenceEvent event;
    for (char c : text) {
      event.tokens.push_back({});
      event.tokens.back().id = c == '.' ? kEnd : c - 'a';
      event.tokens.back().logprob = -1;
    }
    return event;
  }
  static SequenceEvent Ending(const std::string& text, SequenceEnd end) {
    SequenceEvent event = Tokens(text);
    event.end = end;
    event.times = {.submitted = 2 * kMillisecond,
                   .prefill_started = 5 * kMillisecond,
                   .first_token = 15 * kMillisecond,
                   .last_token = 35 * kMillisecond};
    return event;
  }

  std::unique_ptr<const Tokenizer> tokenizer_;
  Generation::Options options_;
};

TEST_F(GenerationTest, StartFirstFinishLast) {
  Generation generation(*tokenizer_, options_);
  auto first = generation.OnEvent(Tokens("x"));
  ASSERT_TRUE(first.has_event);
  EXPECT_EQ(first.event.start().model(), "m");
  EXPECT_THAT(first.event.start().prompt_ids(), ElementsAre(0, 1));
  EXPECT_EQ(first.event.text(), "x");
  EXPECT_FALSE(first.ended);
  auto second = generation.OnEvent(Tokens("y"));
  EXPECT_FALSE(second.event.has_start());
  EXPECT_EQ(second.event.logprobs_size(), 0);
  auto last = generation.OnEvent(Ending("z", SequenceEnd::kLength));
  EXPECT_TRUE(last.ended);
  EXPECT_FALSE(last.finish_engine);
  EXPECT_EQ(last.event.text(), "z");
  const auto& finish = last.event.finish();
  EXPECT_EQ(finish.reason(), v1::LENGTH);
  EXPECT_EQ(finish.seed(), 7u);
  EXPECT_EQ(finish.usage().prompt_tokens(), 2u);
  EXPECT_EQ(finish.usage().completion_tokens(), 3u);
  EXPECT_EQ(finish.timings().queue_ms(), 4);
  EXPECT_EQ(finish.timings().prefill_ms(), 10);
  EXPECT_EQ(finish.timings().decode_ms(), 20);
  EXPECT_EQ(finish.timings().tokens_per_second(), 100);
}

TEST_F(GenerationTest, EndOfSequenceIsNotPartOfTheOutput) {
  Generation generation(*tokenizer_, options_);
  auto only = generation.OnEvent(Ending("a.", SequenceEnd::kStop));
  EXPECT_THAT(only.event.ids(), ElementsAre(0));
  EXPECT_EQ(only.event.text(), "a");
  EXPECT_EQ(only.event.finish().reason(), v1::STOP);
  EXPECT_EQ(only.event.finish().usage().completion_tokens(), 1u);
}

TEST_F(GenerationTest, IgnoredEndIsAnIdWithoutText) {
  options_.stop_ids.clear();
  Generation generation(*tokenizer_, options_);
  auto only = generation.OnEvent(Ending("a.b", SequenceEnd::kLength));
  EXPECT_THAT(only.event.ids(), ElementsAre(0, kEnd, 1));
  EXPECT_EQ(only.event.text(), "ab");
}

TEST_F(GenerationTest, EmptyOutput) {
  Generation generation(*tokenizer_, options_);
  auto only = generation.OnEvent(Ending(".", SequenceEnd::kStop));
  EXPECT_TRUE(only.event.has_start());
  EXPECT_EQ(only.event.ids_size(), 0);
  EXPECT_EQ(only.event.finish().usage().completion_tokens(), 0u);
}

TEST_F(GenerationTest, StopStringAcrossTokens) {
  options_.stop = {"bcd"};
  Generation generation(*tokenizer_, options_);
  EXPECT_EQ(generation.OnEvent(Tokens("ab")).event.text(), "a");
  auto held = generation.OnEvent(Tokens("c"));
  EXPECT_EQ(held.event.text(), "");
  EXPECT_THAT(held.event.ids(), ElementsAre(2));
  auto met = generation.OnEvent(Tokens("dxy"));
  EXPECT_TRUE(met.finish_engine);
  EXPECT_FALSE(met.ended);
  EXPECT_THAT(met.event.ids(), ElementsAre(3));
  EXPECT_EQ(met.event.text(), "");
  // Drawn before the engine was told.
  auto late = generation.OnEvent(Tokens("z"));
  EXPECT_FALSE(late.has_event);
  EXPECT_FALSE(late.finish_engine);
  auto end = generation.OnEvent(Ending("", SequenceEnd::kStop));
  EXPECT_TRUE(end.ended);
  EXPECT_EQ(end.event.finish().reason(), v1::STOP);
  EXPECT_EQ(end.event.finish().usage().completion_tokens(), 4u);
}

TEST_F(GenerationTest, StopStringInTheLastTokenWinsOverLength) {
  options_.stop = {"b"};
  Generation generation(*tokenizer_, options_);
  auto only = generation.OnEvent(Ending("ab", SequenceEnd::kLength));
  EXPECT_EQ(only.event.text(), "a");
  EXPECT_EQ(only.event.finish().reason(), v1::STOP);
  EXPECT_FALSE(only.finish_engine);
}

TEST_F(GenerationTest, CancelAfterTheStopStringIsAFinish) {
  options_.stop = {"b"};
  Generation generation(*tokenizer_, options_);
  EXPECT_TRUE(generation.OnEvent(Tokens("ab")).finish_engine);
  auto end = generation.OnEvent(Ending("", SequenceEnd::kCancelled));
  EXPECT_TRUE(end.rejected.ok());
  EXPECT_EQ(end.event.finish().reason(), v1::STOP);
}

TEST_F(GenerationTest, HeldTextComesOutAtTheEnd) {
  options_.stop = {"abc"};
  Generation generation(*tokenizer_, options_);
  EXPECT_EQ(generation.OnEvent(Tokens("ab")).event.text(), "");
  EXPECT_EQ(generation.OnEvent(Ending("", SequenceEnd::kLength)).event.text(), "ab");
}

TEST_F(GenerationTest, Logprobs) {
  options_.logprobs = true;
  options_.prompt_logprobs = true;
  Generation generation(*tokenizer_, options_);
  SequenceEvent event = Tokens("c");
  event.tokens[0].top_ids = {5, 2};
  event.tokens[0].top_logprobs = {-0.5f, -1};
  event.prompt.resize(2);
  event.prompt[1].id = 1;
  event.prompt[1].logprob = -2;
  auto outcome = generation.OnEvent(event);
  const auto& prompt = outcome.event.start().prompt_logprobs();
  ASSERT_EQ(prompt.size(), 2);
  EXPECT_EQ(prompt[0].id(), 0);
  EXPECT_TRUE(std::isnan(prompt[0].logprob()));
  EXPECT_EQ(prompt[1].logprob(), -2);
  ASSERT_EQ(outcome.event.logprobs_size(), 1);
  EXPECT_EQ(outcome.event.logprobs(0).id(), 2);
  EXPECT_EQ(outcome.event.logprobs(0).logprob(), -1);
  ASSERT_EQ(outcome.event.logprobs(0).top_size(), 2);
  EXPECT_EQ(outcome.event.logprobs(0).top(0).id(), 5);
  EXPECT_EQ(outcome.event.logprobs(0).top(0).logprob(), -0.5f);
}

TEST_F(GenerationTest, EndsWithoutAFinish) {
  const std::pair<SequenceEnd, absl::StatusCode> cases[] = {
      {SequenceEnd::kCancelled, absl::StatusCode::kCancelled},
      {SequenceEnd::kDeadline, absl::StatusCode::kDeadlineExceeded},
      {SequenceEnd::kError, absl::StatusCode::kInternal},
      {SequenceEnd::kNotNumbers, absl::StatusCode::kDataLoss},
  };
  for (const auto& [end, code] : cases) {
    Generation generation(*tokenizer_, options_);
    auto outcome = generation.OnEvent(Ending("", end));
    EXPECT_TRUE(outcome.ended);
    EXPECT_FALSE(outcome.has_event);
    EXPECT_EQ(outcome.rejected.code(), code);
  }
}

TEST_F(GenerationTest, LogitsThatAreNoAnswerAreNamedAfterWhatCameBefore) {
  Generation generation(*tokenizer_, options_);
  auto outcome = generation.OnEvent(Ending("ab", SequenceEnd::kNotNumbers));
  EXPECT_TRUE(outcome.ended);
  EXPECT_EQ(outcome.event.text(), "ab");
  EXPECT_FALSE(outcome.event.has_finish());
  EXPECT_THAT(std::string(outcome.rejected.message()),
              ::testing::StartsWith("m: its logits are not numbers: the checkpoint's weights"));
}

TEST_F(GenerationTest, PauseIsToldAlone) {
  Generation generation(*tokenizer_, options_);
  SequenceEvent pause;
  pause.paused = true;
  auto paused = generation.OnEvent(pause);
  EXPECT_TRUE(paused.event.waiting().paused());
  EXPECT_FALSE(paused.event.has_start());
  SequenceEvent resume;
  resume.resumed = true;
  EXPECT_FALSE(generation.OnEvent(resume).has_event);
  EXPECT_TRUE(generation.OnEvent(Tokens("a")).event.has_start());
}

}  // namespace
}  // namespace switchyard::worker
