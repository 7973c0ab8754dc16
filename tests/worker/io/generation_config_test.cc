#include "worker/io/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace switchyard::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<GenerationConfig> Parse(const char* text) {
  return ParseGenerationConfig(nlohmann::json::parse(text), "generation_config.json");
}

TEST(GenerationConfig, TakesTheFilesValues) {
  const auto config = Parse(R"({"bos_token_id":1,"eos_token_id":[2,3],"do_sample":true,"top_k":20,
      "temperature":0.6,"top_p":0.95,"min_p":0.1,"repetition_penalty":1.05,"unknown":[]})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->bos_id, 1);
  EXPECT_THAT(config->eos_ids, ElementsAre(2, 3));
  EXPECT_EQ(config->top_k, 20);
  EXPECT_FLOAT_EQ(config->temperature, 0.6f);
  EXPECT_FLOAT_EQ(config->top_p, 0.95f);
  EXPECT_FLOAT_EQ(config->min_p, 0.1f);
  EXPECT_FLOAT_EQ(config->repetition_penalty, 1.05f);
}

TEST(GenerationConfig, GreedyOnlyWhereTheFileSaysSo) {
  EXPECT_EQ(Parse(R"({"do_sample":false,"temperature":0.6})")->temperature, 0);
  EXPECT_FLOAT_EQ(Parse(R"({"temperature":0.6})")->temperature, 0.6f);
  EXPECT_EQ(Parse(R"({"temperature":null,"eos_token_id":null})")->temperature, 1);
}

TEST(GenerationConfig, RefusesWhatMakesNoSense) {
  for (const char* text : {R"([])", R"({"eos_token_id":-1})", R"({"eos_token_id":"2"})",
                           R"({"eos_token_id":[2,null]})", R"({"bos_token_id":4294967296})",
                           R"({"temperature":-1})", R"({"temperature":"hot"})", R"({"top_p":1.5})",
                           R"({"top_p":0})", R"({"top_k":-1})", R"({"top_k":2.5})",
                           R"({"repetition_penalty":0})", R"({"do_sample":1})", R"({"min_p":2})"}) {
    const auto config = Parse(text);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(config.status().message(), HasSubstr("generation_config.json")) << text;
  }
}

}  // namespace
}  // namespace switchyard::worker
