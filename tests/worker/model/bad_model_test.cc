// Checkpoints that contradict their configuration: each an error that names the tensor.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>

#include <nlohmann/json.hpp>

#include "tests/worker/model/changed_model.h"
#include "worker/model/families.h"
#include "worker/model/image.h"

namespace switchyard::worker {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<ImageLayout> Plan(const std::string& name, const Change& change) {
  return FillChanged("models/" + name, change);
}

void ExpectRefused(const std::string& name, const Change& change, const std::string& says) {
  const auto layout = Plan(name, change);
  ASSERT_FALSE(layout.ok()) << says;
  EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(layout.status().message(), HasSubstr(says));
}

TEST(BadModel, EveryMissingTensorIsNamed) {
  const std::string root = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/models/";
  for (const std::string name : {"llama_defaults", "glm4_moe_qk_norm", "gpt_oss_published"}) {
    const Tensors all = ReadTensors(root + name + "/model.safetensors");
    for (size_t i = 0; i < all.size(); i += 5) {
      ExpectRefused(name, {.tensors = [i](Tensors& t) { t.erase(t.begin() + i); }},
                    "\"" + all[i].name + "\" is missing");
    }
  }
}

TEST(BadModel, WrongShapesNameBoth) {
  ExpectRefused("llama_defaults", {.config = [](json& c) { c["intermediate_size"] = 60; }},
                "is [56, 48], but by config.json it must be [60, 48]");
  ExpectRefused("llama_defaults", {.config = [](json& c) { c["vocab_size"] = 132; }},
                "is [131, 48], but by config.json it must be [132, 48]");
  ExpectRefused("glm4_moe_qk_norm", {.config = [](json& c) { c["n_routed_experts"] = 16; }},
                "is [8, 40], but by config.json it must be [16, 40]");
  ExpectRefused("gpt_oss_published", {.config = [](json& c) { c["intermediate_size"] = 32; }},
                "must be [4, 48, 64]");
  ExpectRefused("llama_defaults",
                {.tensors =
                     [](Tensors& t) {
                       Find(t, "model.norm.weight").shape = {48, 1};
                     }},
                "is [48, 1]");
}

TEST(BadModel, ConfigsThatWantMoreOrLessThanThereIs) {
  ExpectRefused("llama_defaults", {.config = [](json& c) { c["num_hidden_layers"] = 3; }},
                "\"model.layers.2.input_layernorm.weight\" is missing");
  ExpectRefused("llama_defaults", {.config = [](json& c) { c["num_hidden_layers"] = 1; }},
                "would not be used");
  ExpectRefused("llama_defaults", {.config = [](json& c) { c["attention_bias"] = true; }},
                "self_attn.q_proj.bias\" is missing");
  ExpectRefused("gpt_oss_published", {.config = [](json& c) { c["attention_bias"] = false; }},
                "would not be used");
  ExpectRefused("glm4_moe_qk_norm", {.config = [](json& c) { c["use_qk_norm"] = false; }},
                "would not be used");
  ExpectRefused("llama_defaults",
                {.tensors =
                     [](Tensors& t) {
                       t.push_back({"odd", "F32", {1}, "1234"});
                     }},
                "tensor \"odd\" would not be used");
}

TEST(BadModel, WrongTypesAreNamed) {
  const auto as = [](const char* dtype) {
    return Change{.tensors = [dtype](Tensors& t) {
      WrittenTensor& norm = Find(t, "model.norm.weight");
      norm.dtype = dtype;
      norm.data.resize(48 * (std::string(dtype) == "I64" ? 8 : 1), '\0');
    }};
  };
  ExpectRefused("llama_defaults", as("I64"), "is of type I64");
  ExpectRefused("llama_defaults", as("U8"), "is of type U8");
  ExpectRefused("llama_defaults", as("F8_E4M3"), "is of type F8_E4M3");
}

TEST(BadModel, SkippedTensorsAreNoted) {
  EXPECT_THAT(Plan("gemma3_multimodal", {})->notes,
              ElementsAre("5 tensors of the vision part skipped"));
  EXPECT_THAT(Plan("glm4_moe_air", {})->notes,
              ElementsAre(HasSubstr("tensors of multi-token-prediction layers skipped")));
  const auto tied =
      Plan("llama_rope_llama3", {.tensors = [](Tensors& t) {
             WrittenTensor head = Find(t, "model.embed_tokens.weight");
             head.name = "lm_head.weight";
             t.push_back(head);
             t.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, "1234"});
           }});
  ASSERT_TRUE(tied.ok()) << tied.status();
  EXPECT_EQ(tied->notes.size(), 2u);
}

// Newer transformers may save all experts of a layer in one tensor.
TEST(BadModel, FusedExpertsAreTakenToo) {
  const auto fuse = [](Tensors& tensors) {
    Tensors rest;
    std::map<std::string, WrittenTensor> fused;
    for (int expert = 0; expert < 8; ++expert) {
      for (int layer = 0; layer < 2; ++layer) {
        const std::string at = "model.layers." + std::to_string(layer) + ".mlp.experts.";
        const std::string one = at + std::to_string(expert) + ".";
        WrittenTensor& up = fused[at + "gate_up_proj"];
        up.data += Find(tensors, one + "gate_proj.weight").data;
        up.data += Find(tensors, one + "up_proj.weight").data;
        fused[at + "down_proj"].data += Find(tensors, one + "down_proj.weight").data;
      }
    }
    for (WrittenTensor& tensor : tensors) {
      if (tensor.name.find(".experts.") == std::string::npos) rest.push_back(tensor);
    }
    for (auto& [name, tensor] : fused) {
      const bool down = name.find("down") != std::string::npos;
      tensor.name = name;
      tensor.dtype = "BF16";
      tensor.shape = down ? std::vector<int64_t>{8, 48, 20} : std::vector<int64_t>{8, 40, 48};
      rest.push_back(tensor);
    }
    tensors = rest;
  };
  const auto one_by_one = Plan("qwen3_moe_normalized", {});
  const auto fused = Plan("qwen3_moe_normalized", {.tensors = fuse});
  ASSERT_TRUE(fused.ok()) << fused.status();
  EXPECT_EQ(fused->bytes, one_by_one->bytes);
  EXPECT_FALSE(fused->took_work);
}

}  // namespace
}  // namespace switchyard::worker
