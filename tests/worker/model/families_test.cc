#include "worker/model/families.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>

#include <nlohmann/json.hpp>

#include "common/json.h"
#include "common/utf8.h"

namespace switchyard::worker {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<Architecture> Read(const char* text) { return ReadArchitecture(json::parse(text)); }

std::vector<int32_t> Windows(const Architecture& arch) {
  std::vector<int32_t> windows;
  for (const LayerShape& layer : arch.layers) windows.push_back(layer.window);
  return windows;
}

TEST(Families, ClassDefaults) {
  const auto llama = Read(R"({"model_type":"llama"})");
  ASSERT_TRUE(llama.ok()) << llama.status();
  EXPECT_EQ(llama->kv_heads, 32);
  EXPECT_EQ(llama->head_dim, 128);
  EXPECT_EQ(llama->intermediate, 11008);
  EXPECT_EQ(Read(R"({"model_type":"mistral"})")->layers[31].window, 4096);
  EXPECT_EQ(Read(R"({"model_type":"qwen3_moe"})")->head_dim, 64);
  EXPECT_EQ(Read(R"({"model_type":"gemma3"})")->vocabulary, 262208);
  EXPECT_TRUE(Read(R"({"model_type":"gemma3_text"})")->tied_embeddings);
  EXPECT_TRUE(Read(R"({"model_type":"gpt_oss"})")->qkv_bias);
  EXPECT_EQ(Read(R"({"model_type":"glm4_moe","head_dim":128})")->ropes[0].dim, 64);
}

TEST(Families, NullMeansAbsentExceptWhereItMeansSomething) {
  EXPECT_EQ(Read(R"({"model_type":"qwen3","num_key_value_heads":null})")->kv_heads, 32);
  EXPECT_EQ(Read(R"({"model_type":"mistral","num_key_value_heads":null})")->kv_heads, 32);
  EXPECT_EQ(Read(R"({"model_type":"mistral","sliding_window":null})")->layers[0].window, 0);
  EXPECT_EQ(Read(R"({"model_type":"llama","head_dim":null})")->head_dim, 128);
}

TEST(Families, Windows) {
  EXPECT_THAT(Windows(*Read(R"({"model_type":"qwen3","num_hidden_layers":3,"sliding_window":8})")),
              ElementsAre(0, 0, 0));
  EXPECT_THAT(Windows(*Read(R"({"model_type":"qwen3","num_hidden_layers":3,"sliding_window":8,
                                "use_sliding_window":true,"max_window_layers":2})")),
              ElementsAre(0, 0, 8));
  EXPECT_THAT(Windows(*Read(R"({"model_type":"qwen3","num_hidden_layers":2,"sliding_window":8,
      "use_sliding_window":true,"layer_types":["sliding_attention","full_attention"]})")),
              ElementsAre(8, 0));
  EXPECT_THAT(Windows(*Read(R"({"model_type":"qwen3_moe","num_hidden_layers":2,"sliding_window":8,
                                "use_sliding_window":true})")),
              ElementsAre(8, 8));
  EXPECT_THAT(Windows(*Read(R"({"model_type":"gpt_oss","num_hidden_layers":3})")),
              ElementsAre(128, 0, 128));
  EXPECT_THAT(Windows(*Read(R"({"model_type":"gemma3_text","num_hidden_layers":3,
                                "sliding_window_pattern":2,"sliding_window":5})")),
              ElementsAre(5, 0, 5));
}

TEST(Families, Mixtures) {
  const auto qwen = Read(R"({"model_type":"qwen3_moe","num_hidden_layers":4,"mlp_only_layers":[3],
                             "decoder_sparse_step":2})");
  ASSERT_TRUE(qwen.ok()) << qwen.status();
  EXPECT_TRUE(!qwen->layers[0].moe && qwen->layers[1].moe && !qwen->layers[3].moe);
  EXPECT_FALSE(qwen->moe.normalize);
  EXPECT_EQ(Read(R"({"model_type":"qwen3_moe","num_experts":0})")->moe.experts, 0);
  EXPECT_EQ(Read(R"({"model_type":"glm4_moe","head_dim":128,"n_shared_experts":2})")
                ->moe.shared_intermediate,
            2816);
}

TEST(Families, ClassDefaultsOfSpecialIds) {
  const GenerationConfig gemma = WithClassDefaults({}, json::parse(R"({"model_type":"gemma3"})"));
  EXPECT_THAT(gemma.eos_ids, ElementsAre(1));
  EXPECT_EQ(gemma.bos_id, 2);
  const GenerationConfig given =
      WithClassDefaults({.eos_ids = {7}}, json::parse(R"({"model_type":"llama"})"));
  EXPECT_THAT(given.eos_ids, ElementsAre(7));
  EXPECT_TRUE(WithClassDefaults({}, json::parse(R"({"model_type":"qwen3"})")).eos_ids.empty());
}

TEST(Families, UnknownOnesAreToldWhatIsKnown) {
  const absl::Status status = Read(R"({"model_type":"mamba"})").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(status.message(), HasSubstr("\"mamba\""));
  EXPECT_THAT(status.message(), HasSubstr("llama, mistral, qwen3, qwen3_moe, gemma3_text, gemma3, "
                                          "gpt_oss, glm4_moe"));
}

TEST(Families, RefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"([])", "not an object"},
      {R"({})", "model_type"},
      {R"({"model_type":3})", "model_type"},
      {R"({"model_type":"llama","hidden_act":"relu"})", "\"relu\""},
      {R"({"model_type":"gemma3_text","hidden_activation":"silu"})", "\"silu\""},
      {R"({"model_type":"gemma3_text","attn_logit_softcapping":50})", "attn_logit_softcapping"},
      {R"({"model_type":"gemma3_text","use_bidirectional_attention":true})", "bidirectional"},
      {R"({"model_type":"gemma3_text","sliding_window":null})", "sliding_window"},
      {R"({"model_type":"gemma3_text","rope_parameters":{"rope_type":"default"}})", "layer type"},
      {R"({"model_type":"gemma3","text_config":[]})", "text_config"},
      {R"({"model_type":"gemma3_text","layer_types":["full_attention"]})", "1 entries for 26"},
      {R"({"model_type":"gpt_oss","num_hidden_layers":1,"layer_types":["chunked_attention"]})",
       "chunked_attention"},
      {R"({"model_type":"gpt_oss","swiglu_limit":5})", "swiglu_limit"},
      {R"({"model_type":"gpt_oss","experts_per_token":8})", "experts_per_token"},
      {R"({"model_type":"mistral","layer_types":[]})", "layer_types"},
      {R"({"model_type":"llama","num_key_value_heads":5})", "not a multiple"},
      {R"({"model_type":"llama","hidden_size":4097})", "not a multiple"},
      {R"({"model_type":"llama","head_dim":63})", "head size 63"},
      {R"({"model_type":"llama","num_attention_heads":4096,"hidden_size":4096})", "head size 1"},
      {R"({"model_type":"qwen3_moe","num_experts":4})", "num_experts_per_tok"},
      {R"({"model_type":"glm4_moe","head_dim":128,"n_group":3})", "groups"},
      {R"({"model_type":"glm4_moe","head_dim":128,"n_routed_experts":1024,"n_group":512,)"
       R"("topk_group":512})",
       "n_group"},
      {R"({"model_type":"glm4_moe","head_dim":128,"n_group":128})", "groups"},
      {R"({"model_type":"glm4_moe","head_dim":128,"n_group":4,"topk_group":5})", "groups"},
      {R"({"model_type":"glm4_moe","head_dim":128,"n_group":64,"topk_group":2})",
       "num_experts_per_tok"},
      {R"({"model_type":"glm4_moe","head_dim":128,"scoring_func":"softmax"})", "scoring_func"},
      {R"({"model_type":"glm4_moe","head_dim":128,"topk_method":"greedy"})", "topk_method"},
      {R"({"model_type":"llama","rope_scaling":{"rope_type":"dynamic","factor":2}})", "dynamic"},
      {R"({"model_type":"llama","rope_scaling":"linear"})", "rope_scaling"},
  };
  for (const auto& [config, says] : cases) {
    const auto arch = Read(config);
    ASSERT_FALSE(arch.ok()) << config;
    EXPECT_THAT(arch.status().message(), HasSubstr(says)) << config;
    EXPECT_THAT(arch.status().message(), HasSubstr("config.json")) << config;
  }
}

// Messages travel in protobuf strings: one that is cut within a character loses all that it is in.
TEST(Families, MessagesAreUtf8) {
  std::string name = "x";
  for (int i = 0; i < 100; ++i) name += "\xE4\xB8\x96";
  for (const json& config :
       {json{{"model_type", name}}, json{{"model_type", "llama"}, {"hidden_act", name}},
        json{{"model_type", "llama"}, {"rope_scaling", {{"type", name}}}},
        json{{"model_type", "gpt_oss"}, {"num_hidden_layers", 1}, {"layer_types", {name}}}}) {
    const std::string message(ReadArchitecture(config).status().message());
    EXPECT_THAT(message, HasSubstr("\xE4\xB8\x96..."));
    EXPECT_EQ(FindInvalidUtf8(message), std::string::npos) << message;
  }
}

std::vector<json> GoldenConfigs() {
  std::vector<json> configs;
  const std::string root = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/models";
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.is_directory())
      configs.push_back(*ReadJsonFile(entry.path().string() + "/config.json"));
  }
  return configs;
}

// A number that shapes memory is never taken from a string, a negative or a huge value.
TEST(Families, MalformedNumbersAreErrors) {
  const std::vector<std::string> fields = {
      "vocab_size",          "hidden_size",         "intermediate_size", "num_hidden_layers",
      "num_attention_heads", "num_key_value_heads", "head_dim",          "max_position_embeddings",
      "num_experts_per_tok", "n_routed_experts",    "num_local_experts", "moe_intermediate_size",
      "rms_norm_eps",        "rope_theta"};
  const json bad[] = {"12",
                      -1,
                      1e300,
                      json::array(),
                      json::object(),
                      true,
                      18446744073709551615u,
                      -9223372036854775807 - 1};
  for (const json& config : GoldenConfigs()) {
    for (const std::string& field : fields) {
      const bool nested = config.contains("text_config");
      const json& text = nested ? config["text_config"] : config;
      if (!text.contains(field)) continue;
      for (const json& value : bad) {
        json changed = config;
        (nested ? changed["text_config"] : changed)[field] = value;
        // An object style rope wins over the plain base.
        if (field == "rope_theta" && text.contains("rope_parameters")) continue;
        const auto arch = ReadArchitecture(changed);
        ASSERT_FALSE(arch.ok()) << field << " " << value << " " << config["model_type"];
        EXPECT_THAT(arch.status().message(), HasSubstr(field)) << value;
      }
    }
  }
}

json AnyValue(std::mt19937_64& random) {
  static const json values[] = {nullptr,
                                true,
                                false,
                                0,
                                1,
                                -1,
                                2,
                                3,
                                64,
                                1e9,
                                1e308,
                                0.5,
                                "",
                                "x",
                                "linear",
                                "yarn",
                                65536,
                                1023,
                                json::array(),
                                json::object(),
                                4294967296,
                                18446744073709551615u,
                                "sliding_attention",
                                json::array({1, "a"})};
  return values[random() % std::size(values)];
}

void MutateOne(json& object, std::mt19937_64& random) {
  if (!object.is_object() || object.empty()) return;
  auto field = object.begin();
  std::advance(field, random() % object.size());
  if (field->is_object() && random() % 2 == 0) {
    MutateOne(*field, random);
  } else if (random() % 8 == 0) {
    object.erase(field);
  } else {
    *field = AnyValue(random);
  }
}

// Whatever a config says, the answer is an error or an architecture within bounds.
TEST(Families, TenThousandMutations) {
  std::mt19937_64 random(42);
  const std::vector<json> configs = GoldenConfigs();
  int accepted = 0;
  for (int i = 0; i < 10000; ++i) {
    json config = configs[random() % configs.size()];
    for (uint64_t n = 1 + random() % 3; n > 0; --n) MutateOne(config, random);
    const auto arch = ReadArchitecture(config);
    if (!arch.ok()) continue;
    ++accepted;
    EXPECT_GT(ParameterCount(*arch), 0);
    EXPECT_EQ(arch->q_heads % arch->kv_heads, 0);
    EXPECT_LE(arch->moe.chosen, arch->moe.experts);
    for (const LayerShape& layer : arch->layers) {
      ASSERT_LT(static_cast<size_t>(layer.rope), arch->ropes.size()) << config;
    }
    for (const RopeTable& rope : arch->ropes) {
      EXPECT_LE(rope.dim, arch->head_dim);
      for (const float f : rope.inv_freq) EXPECT_TRUE(std::isfinite(f)) << config;
      EXPECT_TRUE(std::isfinite(rope.scale)) << config;
    }
  }
  EXPECT_GT(accepted, 500);
}

}  // namespace
}  // namespace switchyard::worker
