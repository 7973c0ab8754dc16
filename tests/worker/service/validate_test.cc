#include "worker/validate.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/worker/service/support.h"

namespace switchyard::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ValidateTest : public ::testing::Test {
 protected:
  ValidateTest() : tokenizer_(LetterTokenizer()) {
    limits_.context_length = 16;
    limits_.vocabulary = 32;
    limits_.defaults.eos_ids = {26};
    limits_.defaults.temperature = 0.5f;
    limits_.defaults.top_k = 7;
  }

  static v1::GenerateRequest Request(const std::string& text) {
    v1::GenerateRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
    return request;
  }
  absl::StatusOr<ValidRequest> Validate(const v1::GenerateRequest& request) {
    return ValidateRequest(request, *tokenizer_, limits_);
  }
  // With a prompt added.
  absl::StatusOr<ValidRequest> Validate(const std::string& text) {
    return Validate(Request("text: 'abc' " + text));
  }
  void ExpectRefused(const v1::GenerateRequest& request, const std::string& word) {
    auto valid = Validate(request);
    ASSERT_EQ(valid.status().code(), absl::StatusCode::kInvalidArgument) << request.DebugString();
    EXPECT_THAT(std::string(valid.status().message()), HasSubstr(word));
  }
  void ExpectRefused(const std::string& text, const std::string& word) {
    ExpectRefused(Request("text: 'abc' " + text), word);
  }

  std::unique_ptr<const Tokenizer> tokenizer_;
  RequestLimits limits_;
};

TEST_F(ValidateTest, TakesDefaults) {
  auto valid = Validate("");
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_THAT(valid->sequence.prompt, ElementsAre(0, 1, 2));
  EXPECT_EQ(valid->sequence.sampling.temperature, 0.5f);
  EXPECT_EQ(valid->sequence.sampling.top_k, 7);
  EXPECT_EQ(valid->sequence.sampling.top_p, 1);
  EXPECT_EQ(valid->sequence.max_tokens, 13);
  EXPECT_THAT(valid->sequence.stop_ids, ElementsAre(26));
  EXPECT_EQ(valid->sequence.logprobs, -1);
  EXPECT_EQ(valid->sequence.prompt_logprobs, -1);
}

TEST_F(ValidateTest, RequestWinsOverDefaults) {
  auto valid = Validate(
      "sampling { temperature: 0 top_k: 0 seed: 9 } stop { max_tokens: 5 ignore_eos: true "
      "stop_ids: 3 stop_ids: 1 stop_ids: 3 } logprobs { logprobs: 0 prompt_logprobs: 20 }");
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(valid->sequence.sampling.temperature, 0);
  EXPECT_EQ(valid->sequence.sampling.top_k, 0);
  EXPECT_EQ(valid->sequence.sampling.seed, 9u);
  EXPECT_EQ(valid->sequence.max_tokens, 5);
  EXPECT_THAT(valid->sequence.stop_ids, ElementsAre(1, 3));
  EXPECT_EQ(valid->sequence.logprobs, 0);
  EXPECT_EQ(valid->sequence.prompt_logprobs, 20);
}

TEST_F(ValidateTest, SeedsDiffer) {
  EXPECT_NE(Validate("")->sequence.sampling.seed, Validate("")->sequence.sampling.seed);
}

TEST_F(ValidateTest, EveryBound) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  struct Field {
    const char* name;
    void (v1::Sampling::*set)(float);
    std::vector<float> good, bad;
  };
  const Field fields[] = {
      {"temperature", &v1::Sampling::set_temperature, {0, 100}, {-0.1f, 100.1f, nan, inf}},
      {"top_p", &v1::Sampling::set_top_p, {0.001f, 1}, {0, -1, 1.01f, nan, inf}},
      {"min_p", &v1::Sampling::set_min_p, {0, 1}, {-0.01f, 1.01f, nan, inf}},
      {"repetition_penalty",
       &v1::Sampling::set_repetition_penalty,
       {0.01f, 100},
       {0, -1, 100.1f, nan, inf}},
      {"presence_penalty",
       &v1::Sampling::set_presence_penalty,
       {-100, 100},
       {-100.1f, 100.1f, nan, -inf}},
      {"frequency_penalty",
       &v1::Sampling::set_frequency_penalty,
       {-100, 100},
       {-100.1f, 100.1f, nan, -inf}},
  };
  for (const Field& field : fields) {
    for (float value : field.good) {
      v1::GenerateRequest request = Request("text: 'a'");
      (request.mutable_sampling()->*field.set)(value);
      EXPECT_TRUE(Validate(request).ok()) << field.name << " " << value;
    }
    for (float value : field.bad) {
      v1::GenerateRequest request = Request("text: 'a'");
      (request.mutable_sampling()->*field.set)(value);
      ExpectRefused(request, field.name);
    }
  }
  ExpectRefused("logprobs { logprobs: 21 }", "logprobs.logprobs is 21, at most 20");
  ExpectRefused("logprobs { prompt_logprobs: 4000000000 }", "prompt_logprobs");
  ExpectRefused("priority: 101", "priority is 101");
  ExpectRefused("priority: -101", "priority is -101");
  EXPECT_TRUE(Validate("priority: 100").ok());
  EXPECT_TRUE(Validate("priority: -100").ok());
}

TEST_F(ValidateTest, ANumberIsToldAsItIs) {
  ExpectRefused("sampling { temperature: 100.00001 }",
                "sampling.temperature is 100.00001, not within 0 to 100");
  ExpectRefused("sampling { top_p: 1.0000001 }", "sampling.top_p is 1.0000001, not above 0");
  ExpectRefused("sampling { min_p: -1e-30 }", "sampling.min_p is -1e-30, not within 0 to 1");
  ExpectRefused("sampling { temperature: nan }", "sampling.temperature is nan,");
}

TEST_F(ValidateTest, TopKBeyondTheVocabularyIsOff) {
  EXPECT_EQ(Validate("sampling { top_k: 31 }")->sequence.sampling.top_k, 31);
  EXPECT_EQ(Validate("sampling { top_k: 32 }")->sequence.sampling.top_k, 0);
  EXPECT_EQ(Validate("sampling { top_k: 4294967295 }")->sequence.sampling.top_k, 0);
}

TEST_F(ValidateTest, Stops) {
  v1::GenerateRequest request = Request("text: 'a'");
  for (int i = 0; i < 16; ++i) request.mutable_stop()->add_stop(std::string(256, 'x'));
  EXPECT_TRUE(Validate(request).ok());
  request.mutable_stop()->add_stop("x");
  ExpectRefused(request, "17 strings, at most 16");
  ExpectRefused("stop { stop: '' }", "0 bytes");
  request = Request("text: 'a'");
  request.mutable_stop()->add_stop(std::string(257, 'x'));
  ExpectRefused(request, "257 bytes");
  request.mutable_stop()->set_stop(0, "a\xff");
  ExpectRefused(request, "not UTF-8 at byte 1");

  request = Request("text: 'a'");
  for (int i = 0; i < 64; ++i) request.mutable_stop()->add_stop_ids(i % 32);
  EXPECT_TRUE(Validate(request).ok());
  request.mutable_stop()->add_stop_ids(0);
  ExpectRefused(request, "65 ids, at most 64");
  ExpectRefused("stop { stop_ids: 32 }", "holds 32");
  ExpectRefused("stop { stop_ids: -1 }", "holds -1");
}

TEST_F(ValidateTest, Prompts) {
  ExpectRefused(Request(""), "prompt is empty");
  ExpectRefused(Request("text: ''"), "prompt is empty");
  ExpectRefused(Request("ids {}"), "prompt is empty");
  ExpectRefused(Request("ids { ids: 0 ids: 32 }"), "prompt token 1 is id 32");
  ExpectRefused(Request("ids { ids: -1 }"), "prompt token 0 is id -1");
  ExpectRefused(Request("text: 'aaaaaaaaaaaaaaaa'"), "16 tokens");
  EXPECT_EQ(Validate(Request("text: 'aaaaaaaaaaaaaaa'"))->sequence.max_tokens, 1);
  v1::GenerateRequest request;
  request.set_text("a\xc3");
  ExpectRefused(request, "text: ");
}

TEST_F(ValidateTest, MaxTokensIsCutToTheContext) {
  EXPECT_EQ(Validate("stop { max_tokens: 13 }")->sequence.max_tokens, 13);
  EXPECT_EQ(Validate("stop { max_tokens: 4294967295 }")->sequence.max_tokens, 13);
}

}  // namespace
}  // namespace switchyard::worker
