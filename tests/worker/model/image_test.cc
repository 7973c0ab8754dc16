#include "worker/model/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "tests/worker/io/checkpoint_writer.h"
#include "worker/model/families.h"
#include "worker/model/weights.h"

namespace switchyard::worker {
namespace {

using kernels::DType;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> Count(int n, float from) {
  std::vector<float> values(n);
  for (int i = 0; i < n; ++i) values[i] = from + static_cast<float>(i);
  return values;
}

// A gpt_oss of one layer, hidden 2, one head of 2, two experts of intermediate 2; all of small
// integers.
class TinyGptOss : public testing::Test {
 protected:
  void SetUp() override {
    WriteText(dir_ / "config.json", R"({"model_type":"gpt_oss","vocab_size":3,"hidden_size":2,
        "intermediate_size":2,"num_hidden_layers":1,"num_attention_heads":1,
        "num_key_value_heads":1,"head_dim":2,"num_local_experts":2,"num_experts_per_tok":1,
        "sliding_window":4})");
    const std::string l = "model.layers.0.";
    const std::string e = l + "mlp.experts.";
    tensors_ = {Bf16("model.embed_tokens.weight", {3, 2}, 1),
                Bf16(l + "input_layernorm.weight", {2}, 1),
                Bf16(l + "self_attn.q_proj.weight", {2, 2}, 10),
                Bf16(l + "self_attn.k_proj.weight", {2, 2}, 20),
                Bf16(l + "self_attn.v_proj.weight", {2, 2}, 30),
                Bf16(l + "self_attn.q_proj.bias", {2}, 1),
                Bf16(l + "self_attn.k_proj.bias", {2}, 3),
                Bf16(l + "self_attn.v_proj.bias", {2}, 5),
                Bf16(l + "self_attn.sinks", {1}, 9),
                Bf16(l + "self_attn.o_proj.weight", {2, 2}, 1),
                Bf16(l + "self_attn.o_proj.bias", {2}, 1),
                Bf16(l + "post_attention_layernorm.weight", {2}, 1),
                Bf16(l + "mlp.router.weight", {2, 2}, 1),
                Bf16(l + "mlp.router.bias", {2}, 1),
                Bf16(e + "gate_up_proj", {2, 2, 4}, 0),
                Bf16(e + "gate_up_proj_bias", {2, 4}, 0),
                Bf16(e + "down_proj", {2, 2, 2}, 0),
                Bf16(e + "down_proj_bias", {2, 2}, 0),
                Bf16("model.norm.weight", {2}, 1),
                Bf16("lm_head.weight", {3, 2}, 1)};
    WriteSafetensors(dir_ / "model.safetensors", tensors_);
  }

  static WrittenTensor Bf16(const std::string& name, std::vector<int64_t> shape, float from) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    return {name, "BF16", shape, Bf16Bytes(Count(static_cast<int>(count), from))};
  }

  void Load() {
    auto checkpoint = Checkpoint::Open(dir_.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    arch_ = *ReadArchitecture(checkpoint->config());
    auto layout = PlanImage(arch_, *checkpoint);
    ASSERT_TRUE(layout.ok()) << layout.status();
    layout_ = *std::move(layout);
    progress_ = 0;
    image_.assign(layout_.bytes, std::byte{0xAA});
    const absl::Status filled = FillImage(layout_, *checkpoint, image_, [this](uint64_t prefix) {
      EXPECT_GE(prefix, progress_);
      progress_ = prefix;
      return true;
    });
    ASSERT_TRUE(filled.ok()) << filled;
  }

  const ImageTensor& Tensor(Role role) const {
    for (const ImageTensor& tensor : layout_.tensors) {
      if (tensor.role == role) return tensor;
    }
    ADD_FAILURE() << RoleName(role);
    return layout_.tensors[0];
  }

  std::vector<float> Values(Role role) const {
    const ImageTensor& tensor = Tensor(role);
    std::vector<float> values;
    for (int64_t i = 0; i < tensor.batch * tensor.n * tensor.k; ++i) {
      const std::byte* at = image_.data() + tensor.offset;
      uint32_t bits = 0;
      if (tensor.dtype == DType::kF32) {
        std::memcpy(&bits, at + 4 * i, 4);
      } else {
        std::memcpy(reinterpret_cast<char*>(&bits) + 2, at + 2 * i, 2);
      }
      float value;
      std::memcpy(&value, &bits, 4);
      values.push_back(value);
    }
    return values;
  }

  TempDir dir_;
  std::vector<WrittenTensor> tensors_;
  Architecture arch_;
  ImageLayout layout_;
  std::vector<std::byte> image_;
  uint64_t progress_ = 0;
};

TEST_F(TinyGptOss, ExpertsAreTransposedAndGateAndUpComeApart) {
  Load();
  // Expert 0 is [[0 1 2 3] [4 5 6 7]] as [in][out]; out 0 and 2 are gate, 1 and 3 up.
  EXPECT_THAT(Values(Role::kExpertsGateUp),
              ElementsAre(0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14, 9, 13, 11, 15));
  EXPECT_THAT(Values(Role::kExpertsGateUpBias), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(Values(Role::kExpertsDown), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
  EXPECT_THAT(Values(Role::kExpertsDownBias), ElementsAre(0, 1, 2, 3));
  EXPECT_TRUE(layout_.took_work);
}

TEST_F(TinyGptOss, PartsAreFusedInOrder) {
  Load();
  EXPECT_THAT(Values(Role::kQkv), ElementsAre(10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33));
  EXPECT_THAT(Values(Role::kQkvBias), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(Values(Role::kSinks), ElementsAre(9));
}

TEST_F(TinyGptOss, LaysOutInExecutionOrder) {
  Load();
  uint64_t at = 0;
  for (const ImageTensor& tensor : layout_.tensors) {
    EXPECT_EQ(tensor.offset % 256, 0u);
    EXPECT_GE(tensor.offset, at);
    for (uint64_t gap = at; gap < tensor.offset; ++gap) EXPECT_EQ(image_[gap], std::byte{0});
    at = tensor.offset + tensor.bytes;
    const bool vector = tensor.n == 1 || tensor.role == Role::kRouter;
    EXPECT_EQ(tensor.dtype, vector ? DType::kF32 : DType::kBF16) << RoleName(tensor.role);
  }
  EXPECT_EQ(layout_.tensors.front().role, Role::kEmbedding);
  EXPECT_EQ(layout_.tensors.back().role, Role::kHead);
  EXPECT_EQ(layout_.layer_end[0],
            Tensor(Role::kExpertsDownBias).offset + Tensor(Role::kExpertsDownBias).bytes);
  EXPECT_EQ(layout_.bytes % 256, 0u);
  EXPECT_EQ(layout_.chunk_bytes, uint64_t{256} << 10);
  EXPECT_EQ(layout_.chunks, 1u);
  EXPECT_EQ(progress_, layout_.bytes);
}

TEST_F(TinyGptOss, PartsOfDifferentTypesTakeTheWider) {
  tensors_[3] = {tensors_[3].name, "F32", {2, 2}, FloatBytes(Count(4, 0.1f))};
  WriteSafetensors(dir_ / "model.safetensors", tensors_);
  Load();
  EXPECT_EQ(Tensor(Role::kQkv).dtype, DType::kF32);
  EXPECT_THAT(Values(Role::kQkv),
              ElementsAre(10, 11, 12, 13, 0.1f, 1.1f, 2.1f, 3.1f, 30, 31, 32, 33));
}

TEST_F(TinyGptOss, Float16IsWidenedExactly) {
  // 1, -2, smallest subnormal, largest subnormal, largest, infinity
  const uint16_t halves[] = {0x3C00, 0xC000};
  tensors_[1] = {
      tensors_[1].name, "F16", {2}, std::string(reinterpret_cast<const char*>(halves), 4)};
  const uint16_t odd[] = {0x0001, 0x83FF};
  tensors_[5] = {tensors_[5].name, "F16", {2}, std::string(reinterpret_cast<const char*>(odd), 4)};
  const uint16_t ends[] = {0x7BFF, 0xFC00};
  tensors_[6] = {tensors_[6].name, "F16", {2}, std::string(reinterpret_cast<const char*>(ends), 4)};
  WriteSafetensors(dir_ / "model.safetensors", tensors_);
  Load();
  EXPECT_THAT(Values(Role::kAttentionNorm), ElementsAre(1, -2));
  EXPECT_THAT(Values(Role::kQkvBias),
              ElementsAre(0x1p-24f, -1023 * 0x1p-24f, 65504, -INFINITY, 5, 6));
}

TEST_F(TinyGptOss, BindsEveryWeightToItsPlace) {
  Load();
  const Weights weights = BindWeights(arch_, layout_, image_.data());
  const LayerWeights& layer = weights.layers[0];
  EXPECT_EQ(layer.experts_gate_up.batch, 2);
  EXPECT_EQ(layer.experts_gate_up.n, 4);
  EXPECT_EQ(layer.experts_gate_up.k, 2);
  EXPECT_EQ(layer.qkv_bias[5], 6);
  EXPECT_EQ(static_cast<const void*>(image_.data() + Tensor(Role::kHead).offset),
            weights.head.data);
  EXPECT_EQ(layer.gate_up.data, nullptr);
  EXPECT_EQ(layer.q_norm, nullptr);
}

TEST_F(TinyGptOss, PiecesOfAQuantizedMatrixMeetInOnePlace) {
  Load();
  ImageTensor scales = Tensor(Role::kO);
  scales.piece = Piece::kScales;
  scales.offset = 512;
  layout_.tensors.push_back(scales);
  const Weights weights = BindWeights(arch_, layout_, image_.data());
  EXPECT_EQ(weights.layers[0].o.scales, image_.data() + 512);
  EXPECT_EQ(weights.layers[0].o.data, image_.data() + Tensor(Role::kO).offset);
}

TEST_F(TinyGptOss, FillingCanBeCancelled) {
  Load();
  const auto checkpoint = Checkpoint::Open(dir_.path());
  const absl::Status status =
      FillImage(layout_, *checkpoint, image_, [](uint64_t) { return false; });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

TEST_F(TinyGptOss, ThePlanWithoutWeightsIsTheSame) {
  Load();
  const auto blind = PlanImageWithoutWeights(arch_, DType::kBF16);
  ASSERT_TRUE(blind.ok()) << blind.status();
  EXPECT_EQ(blind->bytes, layout_.bytes);
  EXPECT_EQ(blind->layer_end, layout_.layer_end);
  EXPECT_EQ(blind->tensors.size(), layout_.tensors.size());
}

TEST_F(TinyGptOss, TheKeyFollowsTheCheckpoint) {
  Load();
  const std::string key = layout_.key;
  Load();
  EXPECT_EQ(layout_.key, key);
  EXPECT_EQ(key.size(), 32u);
  std::filesystem::last_write_time(
      dir_ / "model.safetensors",
      std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  Load();
  EXPECT_NE(layout_.key, key);
}

TEST(Image, ChecksumSeesEveryByte) {
  std::vector<std::byte> bytes(40 << 20);
  for (size_t i = 0; i < bytes.size(); i += 4096) bytes[i] = static_cast<std::byte>(i >> 12);
  const uint64_t sum = ImageChecksum(bytes);
  EXPECT_EQ(ImageChecksum(bytes), sum);
  for (const size_t at : {size_t{0}, size_t{63}, size_t{8} << 20, bytes.size() - 1}) {
    bytes[at] ^= std::byte{1};
    EXPECT_NE(ImageChecksum(bytes), sum) << at;
    bytes[at] ^= std::byte{1};
  }
  EXPECT_NE(ImageChecksum(std::span(bytes).first(bytes.size() - 1)), sum);
  const std::vector<std::byte> zeros(1000);
  EXPECT_NE(ImageChecksum(std::span(zeros).first(999)), ImageChecksum(zeros));
}

}  // namespace
}  // namespace switchyard::worker
