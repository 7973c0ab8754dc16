#include "worker/model/quantization_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace switchyard::worker {
namespace {

using testing::HasSubstr;

absl::StatusOr<QuantizationConfig> Read(const std::string& text) {
  return ReadQuantizationConfig(nlohmann::json::parse(text));
}

std::string Compressed(const std::string& format, const std::string& weights) {
  return R"({"quantization_config":{"quant_method":"compressed-tensors","format":")" + format +
         R"(","config_groups":{"group_0":{"targets":["Linear"],"weights":)" + weights + "}}}}";
}

std::string Config(const std::string& fields) { return "{\"quantization_config\":" + fields + "}"; }

TEST(QuantizationConfig, Formats) {
  struct Case {
    std::string text;
    WeightFormat format;
    int32_t group = 0;
    bool zeros = false;
    int32_t zero_offset = 0;
  };
  const Case cases[] = {
      {"{}", WeightFormat::kPlain},
      {Config("null"), WeightFormat::kPlain},
      {R"({"text_config":{"quantization_config":{"quant_method":"fp8"}}})", WeightFormat::kFp8},
      {Config(R"({"quant_method":"fp8","weight_block_size":[128,128]})"), WeightFormat::kFp8Blocks},
      {Config(R"({"quant_method":"fbgemm_fp8"})"), WeightFormat::kFp8},
      {Config(R"({"quant_method":"awq","bits":4,"group_size":64})"), WeightFormat::kAwq, 64},
      {Config(R"({"quant_method":"awq","version":"GEMM"})"), WeightFormat::kAwq, 128},
      {Config(R"({"quant_method":"gptq","bits":4,"group_size":-1})"), WeightFormat::kGptq, 0, false,
       1},
      {Config(R"({"quant_method":"gptq","checkpoint_format":"gptq_v2"})"), WeightFormat::kGptq,
       128},
      {Config(R"({"quant_method":"mxfp4"})"), WeightFormat::kMxfp4, 32},
      {Compressed("float-quantized", R"({"type":"float","num_bits":8,"strategy":"channel"})"),
       WeightFormat::kFp8},
      {Compressed("naive-quantized", R"({"type":"float","num_bits":8,"strategy":"tensor"})"),
       WeightFormat::kFp8},
      {Compressed("float-quantized", R"({"type":"float","num_bits":8,"strategy":"block",
                                         "block_structure":[128,128]})"),
       WeightFormat::kFp8Blocks},
      {Compressed("pack-quantized", R"({"type":"int","num_bits":4,"strategy":"group",
                                        "group_size":32,"symmetric":false})"),
       WeightFormat::kPacked, 32, true},
      {Compressed("pack-quantized", R"({"type":"int","num_bits":4,"strategy":"channel"})"),
       WeightFormat::kPacked},
  };
  for (const Case& each : cases) {
    const auto config = Read(each.text);
    ASSERT_TRUE(config.ok()) << each.text << config.status();
    EXPECT_EQ(config->format, each.format) << each.text;
    EXPECT_EQ(config->group, each.group) << each.text;
    EXPECT_EQ(config->zeros, each.zeros) << each.text;
    EXPECT_EQ(config->zero_offset, each.zero_offset) << each.text;
  }
}

TEST(QuantizationConfig, RefusesByName) {
  const std::pair<std::string, const char*> cases[] = {
      {Config("3"), "not an object"},
      {Config("{}"), "the format without a name"},
      {Config(R"({"quant_method":"bitsandbytes"})"), "\"bitsandbytes\" is not supported"},
      {Config(R"({"quant_method":7})"), "quant_method"},
      {Config(R"({"quant_method":"fp8","weight_block_size":[64,128]})"), "[128, 128]"},
      {Config(R"({"quant_method":"fp8","weight_block_size":"x"})"), "weight_block_size"},
      {Config(R"({"quant_method":"awq","bits":8})"), "\"bits\" 8"},
      {Config(R"({"quant_method":"awq","version":"gemv"})"), "\"gemv\""},
      {Config(R"({"quant_method":"awq","zero_point":false})"), "zero_point"},
      {Config(R"({"quant_method":"awq","group_size":48})"), "\"group_size\" 48"},
      {Config(R"({"quant_method":"gptq","bits":3})"), "\"bits\" 3"},
      {Config(R"({"quant_method":"gptq","checkpoint_format":"marlin"})"), "\"marlin\""},
      {Config(R"({"quant_method":"compressed-tensors","format":"marlin-24"})"), "\"marlin-24\""},
      {Config(R"({"quant_method":"compressed-tensors","format":"pack-quantized"})"),
       "config_groups"},
      {Compressed("pack-quantized", R"({"type":"int","num_bits":8})"), "\"num_bits\" 8"},
      {Compressed("float-quantized", R"({"type":"int","num_bits":8})"), "\"float-quantized\""},
      {Compressed("float-quantized", R"({"type":"float","num_bits":8,"strategy":"token"})"),
       "\"token\""},
      {Compressed("float-quantized", R"({"type":"float","num_bits":4})"), "\"num_bits\" 4"},
      {Config(R"({"quant_method":"mxfp4","modules_to_not_convert":[1]})"),
       "modules_to_not_convert"},
  };
  for (const auto& [text, word] : cases) {
    const auto config = Read(text);
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(word)) << text;
  }
}

TEST(QuantizationConfig, ModulesThatAreKept) {
  const auto read = Read(Config(R"json({"quant_method":"fp8","ignore":["lm_head",
      "model.layers.*.self_attn","re:.*mlp\\.gate$","re:vision.*","re:(a|b)"]})json"));
  ASSERT_TRUE(read.ok()) << read.status();
  const QuantizationConfig& config = *read;
  for (const char* module : {"lm_head", "model.layers.3.self_attn.q_proj", "vision_tower.x",
                             "model.layers.1.mlp.gate", "model.lm_head"}) {
    EXPECT_TRUE(config.Keeps(module)) << module;
  }
  // The last is an expression of which we are not sure.
  for (const char* module : {"model.layers.3.mlp.up_proj", "model.layers.1.mlp.gate_proj", "a",
                             "xlm_head", "model.layers.3.self_attn2"}) {
    EXPECT_FALSE(config.Keeps(module)) << module;
  }
}

}  // namespace
}  // namespace switchyard::worker
