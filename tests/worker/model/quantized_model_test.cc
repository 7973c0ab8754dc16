// Quantized checkpoints that contradict their configuration, each refused by name; and what
// `quantize:` makes of plain ones. That good ones mean what they should is in golden_test.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "common/json.h"
#include "tests/reference/reference_ops.h"
#include "tests/worker/model/changed_model.h"
#include "worker/model/families.h"
#include "worker/model/stored_matrix.h"
#include "worker/model/weights.h"

namespace switchyard::worker {
namespace {

using kernels::DType;
using nlohmann::json;
using testing::HasSubstr;

void ExpectRefused(const std::string& name, const Change& change, const std::string& says) {
  const auto layout = FillChanged("quantized/" + name, change);
  ASSERT_FALSE(layout.ok()) << says;
  EXPECT_THAT(std::string(layout.status().message()), HasSubstr(says));
}

Change Erased(const std::string& name) {
  return {.tensors = [name](Tensors& t) { t.erase(t.begin() + (&Find(t, name) - t.data())); }};
}
Change Reshaped(const std::string& name, const std::vector<int64_t>& shape) {
  return {.tensors = [=](Tensors& t) { Find(t, name).shape = shape; }};
}
Change Retyped(const std::string& name, const std::string& type) {
  return {.tensors = [=](Tensors& t) { Find(t, name).dtype = type; }};
}
// Bytes [at, at + value.size()) of a tensor.
Change Written(const std::string& name, size_t at, const std::string& value) {
  return {.tensors = [=](Tensors& t) { Find(t, name).data.replace(at, value.size(), value); }};
}

const std::string kUp = "model.layers.0.mlp.up_proj";
const std::string kExperts = "model.layers.0.mlp.experts.";

TEST(QuantizedModel, EveryMissingTensorIsNamed) {
  const std::string root = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/quantized/";
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    ++models;
    const Tensors all = ReadTensors(entry.path().string() + "/model.safetensors");
    for (size_t i = 0; i < all.size(); ++i) {
      const std::string& gone = all[i].name;
      if (gone.find("vision") != std::string::npos || gone.find("multi_modal") == 0 ||
          gone.ends_with("input_scale") || gone.ends_with("_proj.k_scale") ||
          gone.ends_with("_proj.v_scale") || gone.ends_with("weight_shape") ||
          gone.ends_with("g_idx")) {
        continue;  // nothing that we need
      }
      // That this module is kept, its config.json does not say.
      const bool unlisted = gone.find("layers.1.self_attn") != std::string::npos &&
                            name == "qwen3_moe_gptq" && gone.ends_with(".weight");
      ExpectRefused(name, Erased(gone), unlisted ? "is missing" : "\"" + gone + "\" is missing");
    }
  }
  EXPECT_GT(models, 0);
}

// Experts in one tensor are [in][out]; read as they are, they would be another model.
TEST(QuantizedModel, Fp8ExpertsInOneTensorAreRefused) {
  const Change change = {
      .config =
          [](json& c) {
            c["quantization_config"] = {{"quant_method", "fp8"}};
          },
      .tensors =
          [](Tensors& t) {
            WrittenTensor& experts = Find(t, kExperts + "gate_up_proj");
            experts.dtype = "F8_E4M3";
            experts.data.resize(experts.data.size() / 2);  // of bf16
            t.push_back({kExperts + "gate_up_proj.weight_scale", "F32", {1}, std::string(4, '\0')});
          }};
  const auto layout = FillChanged("models/gpt_oss_published", change);
  ASSERT_FALSE(layout.ok());
  EXPECT_THAT(std::string(layout.status().message()), HasSubstr("experts in one tensor"));
}

TEST(QuantizedModel, ShapesAndTypesAreChecked) {
  ExpectRefused("llama_fp8_tensor", Reshaped(kUp + ".weight", {64, 96}), "must be [96, 64]");
  ExpectRefused("llama_fp8_tensor", Retyped(kUp + ".weight_scale", "I32"), "scales can be BF16");
  ExpectRefused("qwen3_fp8_channel", Reshaped(kUp + ".weight_scale", {48, 2}), "one a row");
  ExpectRefused("qwen3_moe_fp8_blocks",
                Reshaped("model.layers.0.self_attn.o_proj.weight_scale_inv", {2, 1}),
                "must be [1, 2]");
  ExpectRefused("qwen3_awq", Reshaped(kUp + ".qweight", {12, 64}), "must be [64, 12]");
  ExpectRefused("qwen3_awq", Retyped(kUp + ".qweight", "F32"), "must be I32");
  ExpectRefused("qwen3_awq", Reshaped(kUp + ".qzeros", {12, 2}), "must be [2, 12]");
  ExpectRefused("llama_gptq", Reshaped(kUp + ".scales", {96, 2}), "must be [2, 96]");
  ExpectRefused("llama_packed", Reshaped(kUp + ".weight_packed", {8, 96}), "must be [96, 8]");
  ExpectRefused("gpt_oss_mxfp4", Reshaped(kExperts + "down_proj_blocks", {4, 32, 4, 8}),
                "must be [4, 32, 2, 16]");
  ExpectRefused("gpt_oss_mxfp4", Retyped(kExperts + "down_proj_scales", "F8_E8M0"), "must be U8");
}

TEST(QuantizedModel, ValuesThatCannotBeAreNamed) {
  const std::string infinite("\x00\x00\x80\x7f", 4), half("\x00\x7c", 2);
  ExpectRefused("llama_fp8_tensor", Written(kUp + ".weight", 100, "\x7f"), "is no number");
  ExpectRefused("llama_fp8_tensor", Written(kUp + ".weight_scale", 0, infinite), "not finite");
  ExpectRefused("qwen3_awq", Written(kUp + ".scales", 20, half), "not finite");
  ExpectRefused("llama_packed", Written(kUp + ".weight_scale", 2, std::string("\x00\x50", 2)),
                "beyond f16");
  ExpectRefused("gpt_oss_mxfp4", Written(kExperts + "down_proj_scales", 9, "\xff"),
                "scale that is no number");
}

TEST(QuantizedModel, InputFeaturesOutOfOrderAreRefused) {
  ExpectRefused("llama_gptq", Written(kUp + ".g_idx", 4, std::string("\1\0\0\0", 4)),
                "input features are not in order");
  ExpectRefused("llama_gptq", Written(kUp + ".g_idx", 4, std::string("\0\0\0\x80", 4)),
                "input features are not in order");
}

// As AutoGPTQ adds them to every module.
TEST(QuantizedModel, GptqBiasesOfZerosAreNoBiases) {
  const auto with_bias = [](const std::string& data) {
    return Change{.tensors = [data](Tensors& t) {
      t.push_back({kUp + ".bias", "F16", {96}, data});
    }};
  };
  const auto zeros = FillChanged("quantized/llama_gptq", with_bias(std::string(192, '\0')));
  ASSERT_TRUE(zeros.ok()) << zeros.status();
  EXPECT_THAT(zeros->notes, testing::Contains("1 biases of nothing but zeros skipped"));
  ExpectRefused("llama_gptq", with_bias(std::string(192, '\1')), "would not be used");
}

TEST(QuantizedModel, WhatConfigAndTensorsSayMustAgree) {
  const auto drop = [](json& c) { c.erase("quantization_config"); };
  ExpectRefused("llama_fp8_tensor", {.config = drop}, "by config.json matrices are plain");
  ExpectRefused("llama_gptq", {.config = drop}, "qweight\", but by config.json");
  ExpectRefused("gpt_oss_mxfp4", {.config = drop}, "_blocks\", but by config.json");
  ExpectRefused("qwen3_awq",
                {.config = [](json& c) { c["quantization_config"]["quant_method"] = "fp8"; }},
                "but by config.json matrices are fp8");
  ExpectRefused("qwen3_awq",
                {.config = [](json& c) { c["quantization_config"]["group_size"] = 96; }},
                "in groups of 96");
  ExpectRefused(
      "qwen3_awq",
      {.config =
           [](json& c) { c["quantization_config"]["modules_to_not_convert"] = {"mlp.up_proj"}; }},
      "among those that are not quantized");
  ExpectRefused("llama_fp8_tensor",
                {.config =
                     [](json& c) {
                       c["quantization_config"] = {{"quant_method", "fp8"},
                                                   {"weight_block_size", {128, 128}}};
                     }},
                "weight_scale");
}

TEST(QuantizedModel, PartsOfOneMatrixMustBeAlike) {
  // up_proj in bf16 beside a quantized gate_proj.
  ExpectRefused("llama_fp8_tensor",
                {.tensors =
                     [](Tensors& t) {
                       WrittenTensor& up = Find(t, kUp + ".weight");
                       up.dtype = "BF16";
                       up.data += up.data;
                       for (const char* scale : {".weight_scale", ".input_scale"}) {
                         t.erase(t.begin() + (&Find(t, kUp + scale) - t.data()));
                       }
                     }},
                "must be stored alike");
  // Blocks of scales that would reach over gate and up.
  ExpectRefused("qwen3_moe_fp8_blocks",
                {.config = [](json& c) { c["head_dim"] = 48; },
                 .tensors =
                     [](Tensors& t) {
                       for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
                         WrittenTensor& w =
                             Find(t, std::string("model.layers.0.self_attn.") + part + ".weight");
                         w.shape[0] = w.shape[0] / 64 * 48;
                         w.data.resize(w.shape[0] * 40);
                       }
                     }},
                "no multiple of 128");
}

// A plain model's image, as stored and quantized.
struct Quantizing {
  ImageLayout layout;
  std::vector<std::byte> image;
  Weights weights;
  FillReport report;
};
Quantizing Fill(const Architecture& arch, const Checkpoint& checkpoint, Quantize quantize) {
  Quantizing result;
  auto layout = PlanImage(arch, checkpoint, quantize);
  EXPECT_TRUE(layout.ok()) << layout.status();
  result.layout = *std::move(layout);
  result.image.assign(result.layout.bytes, std::byte{0xAA});
  uint64_t last = 0;
  const absl::Status filled = FillImage(
      result.layout, checkpoint, result.image,
      [&](uint64_t prefix) {
        EXPECT_GE(prefix, last);
        last = prefix;
        return true;
      },
      &result.report);
  EXPECT_TRUE(filled.ok()) << filled;
  EXPECT_EQ(last, result.layout.bytes);
  result.weights = BindWeights(arch, result.layout, result.image.data());
  return result;
}

// The squared difference of two matrices, and their weights squared.
QuantizationError Difference(const kernels::Matrix& plain, const kernels::Matrix& quantized) {
  QuantizationError sum;
  for (int64_t batch = 0; batch < plain.batch; ++batch) {
    for (int64_t n = 0; n < plain.n; ++n) {
      for (int64_t k = 0; k < plain.k; ++k) {
        const double w = kernels::ReferenceWeight(plain, batch, n, k);
        const double off = w - kernels::ReferenceWeight(quantized, batch, n, k);
        sum += {off * off, w * w};
      }
    }
  }
  return sum;
}

std::vector<std::pair<kernels::Matrix, kernels::Matrix>> Projections(const Quantizing& a,
                                                                     const Quantizing& b) {
  std::vector<std::pair<kernels::Matrix, kernels::Matrix>> pairs;
  for (size_t i = 0; i < a.weights.layers.size(); ++i) {
    for (const auto member :
         {&LayerWeights::qkv, &LayerWeights::o, &LayerWeights::gate_up, &LayerWeights::down,
          &LayerWeights::experts_gate_up, &LayerWeights::experts_down,
          &LayerWeights::shared_gate_up, &LayerWeights::shared_down}) {
      const kernels::Matrix& plain = a.weights.layers[i].*member;
      if (plain.data != nullptr) pairs.push_back({plain, b.weights.layers[i].*member});
    }
  }
  return pairs;
}

class QuantizeTest : public testing::TestWithParam<const char*> {};

TEST_P(QuantizeTest, MakesWhatTheReportSays) {
  const std::string dir = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/models/" + GetParam();
  const auto checkpoint = Checkpoint::Open(dir);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Architecture arch = *ReadArchitecture(checkpoint->config());
  const Quantizing plain = Fill(arch, *checkpoint, Quantize::kAsStored);
  EXPECT_EQ(plain.report.worst_name, "");
  for (const auto& [quantize, dtype, bound] : {std::tuple(Quantize::kFp8, DType::kF8E4M3, 0.03),
                                               std::tuple(Quantize::kInt4, DType::kInt4, 0.11)}) {
    const Quantizing quantized = Fill(arch, *checkpoint, quantize);
    EXPECT_TRUE(quantized.layout.took_work);
    EXPECT_NE(quantized.layout.key, plain.layout.key);
    EXPECT_LT(quantized.layout.bytes, plain.layout.bytes);
    EXPECT_EQ(quantized.weights.embedding.dtype, plain.weights.embedding.dtype);
    EXPECT_EQ(quantized.weights.head.dtype, plain.weights.head.dtype);
    QuantizationError all;
    double worst = 0;
    for (const auto& [before, after] : Projections(plain, quantized)) {
      const bool fits = quantize == Quantize::kFp8 || before.k % 32 == 0;
      ASSERT_EQ(after.dtype, fits ? dtype : before.dtype);
      const QuantizationError error = Difference(before, after);
      if (!fits) continue;
      EXPECT_LT(error.Relative(), bound);
      EXPECT_GT(error.Relative(), bound / 5);
      all += error;
      worst = std::max(worst, error.Relative());
    }
    EXPECT_NEAR(quantized.report.error.Relative(), all.Relative(), 1e-6);
    EXPECT_NEAR(quantized.report.worst, worst, 1e-6);
  }
}

// A family each; k of 64, 96, 56 (not quantized to int4), and transposed experts.
INSTANTIATE_TEST_SUITE_P(Models, QuantizeTest,
                         testing::Values("llama_rope_yarn", "mistral_window", "qwen3_untied_yarn",
                                         "qwen3_moe_normalized", "gemma3_text_new",
                                         "gpt_oss_published", "gpt_oss_rope_left_out",
                                         "glm4_moe_air"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Quantize, OnlyPlainCheckpoints) {
  const auto twice = FillChanged("quantized/qwen3_awq", {}, Quantize::kFp8);
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("is AWQ already"));
  const auto infinite =
      FillChanged("models/llama_defaults",
                  Written(kUp + ".weight", 8, std::string("\x00\x00\x80\x7f", 4)), Quantize::kFp8);
  EXPECT_THAT(std::string(infinite.status().message()), HasSubstr("not finite"));
}

// The layout without weights is that with them.
TEST(Quantize, SizesAreKnownFromTheConfiguration) {
  const std::string root = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/";
  for (const std::string folder : {"quantized", "models"}) {
    for (const auto& entry : std::filesystem::directory_iterator(root + folder)) {
      if (!entry.is_directory()) continue;
      const auto checkpoint = Checkpoint::Open(entry.path().string());
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      const Architecture arch = *ReadArchitecture(checkpoint->config());
      const auto config = ReadQuantizationConfig(checkpoint->config());
      if (entry.path().filename() == "qwen3_moe_gptq") continue;  // keeps more than it lists
      const bool quantized = config->format != WeightFormat::kPlain;
      for (const Quantize quantize : {Quantize::kAsStored, Quantize::kFp8, Quantize::kInt4}) {
        if (quantized && quantize != Quantize::kAsStored) continue;
        const auto known = PlanImage(arch, *checkpoint, quantize);
        ASSERT_TRUE(known.ok()) << known.status();
        const auto plain = known->tensors.front().dtype;  // of the embedding
        const auto guessed = PlanImageWithoutWeights(arch, plain, *config, quantize);
        ASSERT_TRUE(guessed.ok()) << guessed.status();
        EXPECT_EQ(guessed->bytes, known->bytes) << entry.path();
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::worker
