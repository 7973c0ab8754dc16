// The configurations of published models, and every configuration that is shipped: parsed, and
// their sizes held against the published ones.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "common/json.h"
#include "worker/io/checkpoint.h"
#include "worker/model/families.h"
#include "worker/model/image.h"

namespace switchyard::worker {
namespace {

Architecture ReadConfig(const std::string& path) {
  const auto json = ReadJsonFile(path);
  EXPECT_TRUE(json.ok()) << json.status();
  auto arch = ReadArchitecture(*json);
  EXPECT_TRUE(arch.ok()) << path << ": " << arch.status();
  return *arch;
}

Architecture Known(const std::string& name) {
  return ReadConfig(std::string(SWITCHYARD_SOURCE_DIR) + "/tests/worker/model/configs/" + name +
                    ".json");
}

size_t Windows(const Architecture& arch) {
  return std::count_if(arch.layers.begin(), arch.layers.end(),
                       [](const LayerShape& layer) { return layer.window > 0; });
}

TEST(KnownModels, ParameterCounts) {
  EXPECT_EQ(ParameterCount(Known("llama-3.3-70b")), 70'553'706'496);
  EXPECT_EQ(ParameterCount(Known("qwen3-32b")), 32'762'123'264);
  EXPECT_EQ(ParameterCount(Known("qwen3-30b-a3b")), 30'532'122'624);
  EXPECT_EQ(ParameterCount(Known("mistral-small-24b")), 23'572'403'200);
  EXPECT_NEAR(ParameterCount(Known("gpt-oss-120b")), 116.83e9, 0.01e9);
  EXPECT_NEAR(ParameterCount(Known("glm-4.5-air")), 106.85e9, 0.01e9);
  EXPECT_NEAR(ParameterCount(Known("gemma-3-27b")), 27.01e9, 0.01e9);
}

TEST(KnownModels, ImageSizesFollowFromTheParameters) {
  for (const char* name : {"llama-3.3-70b", "qwen3-32b", "qwen3-30b-a3b", "mistral-small-24b",
                           "gpt-oss-120b", "glm-4.5-air", "gemma-3-27b"}) {
    const Architecture arch = Known(name);
    const auto layout = PlanImageWithoutWeights(arch, kernels::DType::kBF16);
    ASSERT_TRUE(layout.ok()) << layout.status();
    const double two_bytes_each = 2.0 * static_cast<double>(ParameterCount(arch));
    EXPECT_GE(static_cast<double>(layout->bytes), two_bytes_each) << name;
    EXPECT_LE(static_cast<double>(layout->bytes), two_bytes_each * 1.002) << name;
    EXPECT_EQ(layout->chunk_bytes, uint64_t{64} << 20);
    EXPECT_EQ(layout->layer_end.size(), arch.layers.size());
    EXPECT_TRUE(std::is_sorted(layout->layer_end.begin(), layout->layer_end.end()));
  }
}

// The profile of six published models for one 96 GB card: GB of the image, by the forms that its
// models.d asks for. The README there says the same.
TEST(KnownModels, SizesOfTheProfileFor96Gb) {
  struct Case {
    const char* checkpoint;
    Quantize quantize;
    double gigabytes;
  };
  for (const Case& each :
       {Case{"Llama-3.3-70B-Instruct-FP8-dynamic", Quantize::kAsStored, 72.7},
        Case{"Qwen3-32B", Quantize::kFp8, 34.3}, Case{"Qwen3-30B-A3B", Quantize::kFp8, 31.3},
        Case{"gemma-3-27b-it", Quantize::kFp8, 28.4},
        Case{"gpt-oss-120b", Quantize::kAsStored, 65.4},
        Case{"GLM-4.5-Air", Quantize::kInt4, 57.0}}) {
    const auto json = ReadJsonFile(std::string(SWITCHYARD_SOURCE_DIR) +
                                   "/deploy/96gb/checkpoints/" + each.checkpoint + "/config.json");
    ASSERT_TRUE(json.ok()) << json.status();
    const auto arch = ReadArchitecture(*json);
    const auto config = ReadQuantizationConfig(*json);
    ASSERT_TRUE(arch.ok() && config.ok()) << arch.status() << config.status();
    const auto layout =
        PlanImageWithoutWeights(*arch, kernels::DType::kBF16, *config, each.quantize);
    ASSERT_TRUE(layout.ok()) << layout.status();
    EXPECT_NEAR(static_cast<double>(layout->bytes) / 1e9, each.gigabytes, 0.06) << each.checkpoint;
  }
}

TEST(KnownModels, Gemma) {
  const Architecture gemma = Known("gemma-3-27b");
  EXPECT_EQ(gemma.vocabulary, 262208);
  EXPECT_EQ(Windows(gemma), 52u);
  EXPECT_EQ(gemma.layers[0].window, 1024);
  EXPECT_EQ(gemma.layers[0].rope, 1);
  EXPECT_EQ(gemma.layers[5].window, 0);
  EXPECT_EQ(gemma.layers[5].rope, 0);
  EXPECT_FLOAT_EQ(gemma.attention_scale, 1 / std::sqrt(168.0f));
  EXPECT_FLOAT_EQ(gemma.embedding_scale, std::sqrt(5376.0f));
  EXPECT_TRUE(gemma.tied_embeddings && gemma.post_norms && gemma.qk_norm);
  EXPECT_FLOAT_EQ(gemma.ropes[0].inv_freq[0], 1.0f / 8);
  EXPECT_FLOAT_EQ(gemma.ropes[1].inv_freq[0], 1.0f);
}

TEST(KnownModels, GptOss) {
  const Architecture gpt = Known("gpt-oss-120b");
  EXPECT_EQ(Windows(gpt), 18u);
  EXPECT_EQ(gpt.layers[0].window, 128);
  EXPECT_EQ(gpt.moe.intermediate, 2880);
  EXPECT_EQ(gpt.intermediate, 0);  // no dense layer
  EXPECT_TRUE(gpt.sinks && gpt.qkv_bias && gpt.o_bias && gpt.moe.router_bias);
  EXPECT_NEAR(gpt.ropes[0].scale, 0.1 * std::log(32.0) + 1, 1e-6);
}

TEST(KnownModels, Glm) {
  const Architecture glm = Known("glm-4.5-air");
  EXPECT_EQ(glm.ropes[0].dim, 64);
  EXPECT_FALSE(glm.layers[0].moe);
  EXPECT_TRUE(glm.layers[1].moe);
  EXPECT_EQ(glm.moe.shared_intermediate, 1408);
  EXPECT_TRUE(glm.qkv_bias && !glm.o_bias && !glm.qk_norm && glm.moe.normalize);
}

TEST(KnownModels, Describe) {
  EXPECT_EQ(Describe(Known("llama-3.3-70b")), "llama, 80 layers, hidden 8192, 70.6 B parameters");
  EXPECT_EQ(Describe(Known("qwen3-30b-a3b")),
            "qwen3_moe, 48 layers, hidden 2048, 128 experts of which 8, 30.5 B parameters");
}

// Every checkpoint of the repository opens and fits its configuration.
TEST(ShippedModels, PlanWithoutComplaint) {
  const std::string root = SWITCHYARD_SOURCE_DIR;
  for (const char* place : {"/models.d/demo", "/tests/golden/models", "/tests/golden/quantized"}) {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(root + place, none)) {
      if (!std::filesystem::exists(entry.path() / "config.json")) continue;
      const auto checkpoint = Checkpoint::Open(entry.path().string());
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      const auto arch = ReadArchitecture(checkpoint->config());
      ASSERT_TRUE(arch.ok()) << entry.path() << arch.status();
      const auto layout = PlanImage(*arch, *checkpoint);
      ASSERT_TRUE(layout.ok()) << layout.status();
      // Transposing experts is work, and so is unpacking four bits; fp8 is copied.
      const std::string name = entry.path().filename().string();
      const bool packed = name.find("awq") != std::string::npos ||
                          name.find("gptq") != std::string::npos ||
                          name.find("packed") != std::string::npos;
      EXPECT_EQ(layout->took_work, packed || arch->names.experts_transposed) << entry.path();
    }
  }
}

}  // namespace
}  // namespace switchyard::worker
