#include "worker/model/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"

namespace switchyard::worker {
namespace {

using testing::HasSubstr;

constexpr RopeDefaults kDefaults = {.theta = 10000, .head_dim = 64, .max_positions = 4096};

absl::StatusOr<RopeParameters> Read(const char* rope, const char* top = "{}") {
  const nlohmann::json rope_json = nlohmann::json::parse(rope);
  const nlohmann::json top_json = nlohmann::json::parse(top);
  ConfigReader rope_reader(rope_json, "rope");
  ConfigReader top_reader(top_json, "top");
  const RopeParameters parameters = ReadRope(rope_reader, top_reader, kDefaults);
  if (!rope_reader.status().ok()) return rope_reader.status();
  return parameters;
}

TEST(Rope, Default) {
  const RopeTable table = MakeRope(*Read("{}"));
  ASSERT_EQ(table.dim, 64);
  ASSERT_EQ(table.inv_freq.size(), 32u);
  EXPECT_EQ(table.inv_freq[0], 1);
  EXPECT_NEAR(table.inv_freq[16], 0.01, 1e-9);
  EXPECT_EQ(table.scale, 1);
}

TEST(Rope, PartialComesFromTheObjectFirst) {
  EXPECT_EQ(Read("{}", R"({"partial_rotary_factor":0.5})")->dim, 32);
  EXPECT_EQ(Read(R"({"partial_rotary_factor":0.25})", R"({"partial_rotary_factor":0.5})")->dim, 16);
}

TEST(Rope, Linear) {
  const RopeTable table = MakeRope(*Read(R"({"type":"linear","factor":4})"));
  EXPECT_EQ(table.inv_freq[0], 0.25f);
}

TEST(Rope, Llama3KeepsShortWavesAndStretchesLongOnes) {
  const auto p = Read(R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,
                          "original_max_position_embeddings":2048})");
  ASSERT_TRUE(p.ok()) << p.status();
  const RopeTable table = MakeRope(*p);
  EXPECT_EQ(table.inv_freq[0], 1);
  const double last = std::pow(10000, -62.0 / 64);
  EXPECT_NEAR(table.inv_freq[31], last / 8, 1e-9);
}

TEST(Rope, YarnKeepsFastDimensionsAndStretchesSlowOnes) {
  const RopeTable table =
      MakeRope(*Read(R"({"rope_type":"yarn","factor":4,"original_max_position_embeddings":1024})"));
  EXPECT_EQ(table.inv_freq[0], 1);
  EXPECT_NEAR(table.inv_freq[31], std::pow(10000, -62.0 / 64) / 4, 1e-9);
  EXPECT_NEAR(table.scale, 0.1 * std::log(4) + 1, 1e-6);
}

TEST(Rope, YarnTakesItsFactorFromTheContexts) {
  EXPECT_EQ(
      Read(R"({"rope_type":"yarn","factor":null,"original_max_position_embeddings":1024})")->factor,
      4);
  EXPECT_EQ(
      Read(R"({"rope_type":"yarn","factor":2})", R"({"original_max_position_embeddings":512})")
          ->original_context,
      512);
}

TEST(Rope, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"rope_type":"longrope"})", "\"longrope\""},
      {R"({"type":"dynamic"})", "\"dynamic\""},
      {R"({"rope_type":7})", "rope_type"},
      {R"({"rope_type":"linear"})", "factor"},
      {R"({"rope_type":"linear","factor":0})", "factor"},
      {R"({"rope_type":"linear","factor":"8"})", "factor"},
      {R"({"rope_theta":1})", "rope_theta"},
      {R"({"rope_theta":-5})", "rope_theta"},
      {R"({"partial_rotary_factor":1.5})", "partial_rotary_factor"},
      {R"({"partial_rotary_factor":0.01})", "rotary elements"},
      {R"({"partial_rotary_factor":0.05})", "rotary elements"},
      {R"({"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4})", "above"},
      {R"({"rope_type":"yarn","factor":2,"original_max_position_embeddings":0})", "original"},
      {R"({"rope_type":"yarn","factor":2,"truncate":1})", "truncate"},
      {R"({"rope_type":"yarn","factor":2,"attention_factor":"x"})", "attention_factor"},
  };
  for (const auto& [rope, says] : cases) {
    const auto p = Read(rope);
    EXPECT_FALSE(p.ok()) << rope;
    EXPECT_THAT(p.status().message(), HasSubstr(says)) << rope;
  }
}

}  // namespace
}  // namespace switchyard::worker
