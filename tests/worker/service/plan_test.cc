#include "worker/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "kernels/ops.h"
#include "tests/worker/service/support.h"
#include "worker/backend.h"
#include "worker/device/device.h"

namespace switchyard::worker {
namespace {

using ::testing::HasSubstr;

class PlanTest : public ::testing::Test {
 protected:
  PlanTest() : ops_(kernels::MakeCpuOps(2)) {}
  absl::Status StatusOf(const v1::Model& model, const std::string& device = "cpu") {
    return OpenModel(model, device, *ops_).status();
  }
  std::unique_ptr<kernels::Ops> ops_;
};

TEST_F(PlanTest, EveryGoldenModel) {
  for (const auto& entry : std::filesystem::directory_iterator(GoldenModel(""))) {
    if (!entry.is_directory()) continue;
    v1::Model model = GoldenEntry(entry.path().filename());
    model.set_context_length(64);
    auto opened = OpenModel(model, "cpu", *ops_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    const v1::Plan& plan = (*opened)->plan;
    EXPECT_EQ(plan.model(), model.name());
    EXPECT_GT(plan.parameters(), 0u);
    EXPECT_GT(plan.image_bytes(), 0u);
    EXPECT_EQ(plan.chunks(), (plan.image_bytes() + plan.chunk_bytes() - 1) / plan.chunk_bytes());
    EXPECT_GT(plan.fixed_bytes(), uint64_t{1} << 20);
    EXPECT_GT(plan.kv_smallest_bytes(), 0u);
    EXPECT_GE(plan.kv_useful_bytes(), plan.kv_smallest_bytes());
    EXPECT_EQ(plan.kv_smallest_bytes() % 4096, 0u);
    EXPECT_GT(plan.kv_granule_bytes(), 0u);
    EXPECT_GT(plan.checkpoint_bytes(), 0u);
    EXPECT_FALSE(plan.image_key().empty());
  }
}

TEST_F(PlanTest, ShorterContextsAreWhatTheyWouldBe) {
  v1::Model model = GoldenEntry("llama_defaults");
  model.set_context_length(100);
  auto opened = OpenModel(model, "cpu", *ops_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  std::vector<uint32_t> lengths;
  for (const v1::Plan::Context& shorter : (*opened)->plan.shorter()) {
    lengths.push_back(shorter.context_length());
    model.set_context_length(shorter.context_length());
    const v1::Plan plan = (*OpenModel(model, "cpu", *ops_))->plan;
    EXPECT_EQ(shorter.bytes(), plan.fixed_bytes() + plan.kv_smallest_bytes()) << lengths.back();
  }
  EXPECT_THAT(lengths, ::testing::ElementsAre(64, 32, 16, 8, 4, 2));
  model.set_context_length(2);
  EXPECT_EQ((*OpenModel(model, "cpu", *ops_))->plan.shorter_size(), 0);
}

TEST_F(PlanTest, DefaultsAreResolved) {
  v1::Model model = GoldenEntry("llama_defaults");
  model.clear_context_length();
  model.clear_max_sequences();
  auto opened = OpenModel(model, "cpu", *ops_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ((*opened)->plan.context_length(), 2048u);  // the class's max_position_embeddings
  EXPECT_EQ((*opened)->plan.max_sequences(), 8u);
  EXPECT_EQ((*opened)->plan.prefill_chunk(), 256u);
  EXPECT_EQ((*opened)->limits.kv_dtype, kernels::DType::kF32);
}

TEST_F(PlanTest, SamePlanTwice) {
  const v1::Model model = GoldenEntry("llama_defaults");
  EXPECT_EQ(OpenGolden(model)->plan.SerializeAsString(),
            OpenGolden(model)->plan.SerializeAsString());
}

TEST_F(PlanTest, RefusesByName) {
  struct Case {
    void (*change)(v1::Model&);
    const char* word;
  };
  const Case cases[] = {
      {[](v1::Model& m) { m.set_context_length(2049); }, "context_length is 2049, at most 2048"},
      {[](v1::Model& m) { m.set_context_length(1); }, "context_length is 1"},
      {[](v1::Model& m) { m.set_max_sequences(257); }, "max_sequences is 257, at most 256"},
      {[](v1::Model& m) { m.set_prefill_chunk(70000); }, "prefill_chunk is 70000"},
      {[](v1::Model& m) { m.set_kv_cache(v1::KV_FP8); }, "KV_FP8 is not supported on cpu"},
      {[](v1::Model& m) { m.set_kv_cache(v1::KV_BF16); }, "KV_BF16 is not supported on cpu"},
      {[](v1::Model& m) { m.set_fast_prefill(true); }, "fast_prefill is not supported on cpu"},
      {[](v1::Model& m) { m.set_checkpoint("/nonexistent"); }, "/nonexistent"},
  };
  for (const Case& each : cases) {
    v1::Model model = GoldenEntry("llama_defaults");
    each.change(model);
    EXPECT_THAT(std::string(StatusOf(model).message()), HasSubstr(each.word));
  }
  EXPECT_THAT(std::string(StatusOf(GoldenEntry("llama_defaults"), "tpu").message()),
              HasSubstr("device \"tpu\""));
}

// Where there is no GPU too: planning touches no device.
TEST_F(PlanTest, OfAGpu) {
  const v1::Model model = GoldenEntry("llama_defaults");
  auto planning = PlanningOps("GPU-1", 1);
  ASSERT_TRUE(planning.ok()) << planning.status();
  auto opened = OpenModel(model, "GPU-1", **planning);
  if (!HaveCuda()) {
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr("only \"cpu\""));
    return;
  }
  ASSERT_TRUE(opened.ok()) << opened.status();
  const v1::Plan& plan = (*opened)->plan;
  for (const uint64_t bytes : {plan.image_bytes(), plan.chunk_bytes(), plan.fixed_bytes(),
                               plan.kv_smallest_bytes(), plan.kv_granule_bytes()}) {
    EXPECT_GT(bytes, 0u);
    EXPECT_EQ(bytes % kCudaPageBytes, 0u);
  }
  EXPECT_EQ((*opened)->limits.kv_dtype, kernels::DType::kBF16);
  EXPECT_EQ((*opened)->limits.launch_ahead, 1);
  EXPECT_EQ(plan.prefill_chunk(), plan.context_length()) << "8192, but no longer than a context";
  EXPECT_NE(plan.image_key(), OpenGolden(model)->plan.image_key()) << "of another size";
}

TEST_F(PlanTest, BatchInvariantIsAlwaysSoOnCpu) {
  v1::Model model = GoldenEntry("llama_defaults");
  const auto plain = OpenGolden(model);
  model.set_batch_invariant(true);
  EXPECT_EQ(OpenGolden(model)->plan.SerializeAsString(), plain->plan.SerializeAsString());
}

TEST_F(PlanTest, OptionsOfAGpu) {
  if (!HaveCuda()) GTEST_SKIP() << "this build drives no GPU";
  const auto plan_of = [](const v1::Model& model) {
    auto planning = PlanningOps("GPU-1", 1, model);
    EXPECT_TRUE(planning.ok()) << planning.status();
    auto opened = OpenModel(model, "GPU-1", **planning);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  };
  v1::Model model = GoldenEntry("llama_defaults");
  const auto plain = plan_of(model);

  model.set_kv_cache(v1::KV_FP8);
  const auto fp8 = plan_of(model);
  EXPECT_EQ(fp8->limits.kv_dtype, kernels::DType::kF8E4M3);
  EXPECT_EQ(fp8->plan.kv_bytes_per_token(), plain->plan.kv_bytes_per_token() / 2);
  EXPECT_EQ(fp8->plan.image_key(), plain->plan.image_key()) << "the weights are the same";
  model.set_kv_cache(v1::KV_F32);
  auto planning = PlanningOps("GPU-1", 1);
  EXPECT_THAT(std::string(OpenModel(model, "GPU-1", **planning).status().message()),
              HasSubstr("leave it out or say KV_BF16 or KV_FP8"));

  model.set_kv_cache(v1::KV_CACHE_AUTO);
  model.set_batch_invariant(true);
  const auto invariant = plan_of(model);
  EXPECT_EQ(invariant->plan.image_key(), plain->plan.image_key());
  EXPECT_GT(invariant->plan.fixed_bytes(), 0u);

  model.set_fast_prefill(true);
  EXPECT_THAT(std::string(OpenModel(model, "GPU-1", **planning).status().message()),
              HasSubstr("leave one out"));
  model.set_batch_invariant(false);
  EXPECT_THAT(std::string(OpenModel(model, "GPU-1", **planning).status().message()),
              HasSubstr("fast_prefill needs fp8 weights with a scale per row"));
  model.set_quantize(v1::FP8);
  const auto fast = plan_of(model);
  model.set_fast_prefill(false);
  EXPECT_EQ(fast->plan.image_key(), plan_of(model)->plan.image_key());
}

TEST_F(PlanTest, SaysWhyPrefillIsSlow) {
  const auto without = kernels::MakeCpuOps(1);  // no more than a GPU's has it a library
  v1::Model model;
  EXPECT_THAT(SlowPrefill("GPU-1", *without, model), HasSubstr("libcublasLt.so"));
  EXPECT_EQ(SlowPrefill("cpu", *without, model), "");
  model.set_batch_invariant(true);  // does without
  EXPECT_EQ(SlowPrefill("GPU-1", *without, model), "");
}

TEST_F(PlanTest, ScratchForQuantizedPromptsIsCounted) {
  auto ops = PlanningOps("GPU-1", 1);
  if (!HaveCuda() || *(*ops)->matrix_library() == 0) GTEST_SKIP() << "there is no cuBLASLt";
  kernels::ScratchShape shape;
  shape.rows = 2048;
  shape.hidden = 4096;
  shape.intermediate = 14336;
  const int64_t plain = (*ops)->ScratchBytes(shape);
  shape.quantized = true;
  EXPECT_EQ((*ops)->ScratchBytes(shape), plain + (128 << 20));
  shape.rows = 16;  // no step goes that way
  const int64_t few = (*ops)->ScratchBytes(shape);
  shape.quantized = false;
  EXPECT_EQ((*ops)->ScratchBytes(shape), few);
}

TEST_F(PlanTest, QuantizingIsPlanned) {
  v1::Model model = GoldenEntry("llama_rope_llama3");  // k of 72, 128 and 96
  const auto as_stored = OpenGolden(model);
  model.set_quantize(v1::FP8);
  const auto fp8 = OpenGolden(model);
  model.set_quantize(v1::INT4);
  const auto int4 = OpenGolden(model);
  EXPECT_LT(fp8->plan.image_bytes(), as_stored->plan.image_bytes());
  EXPECT_LT(int4->plan.image_bytes(), as_stored->plan.image_bytes());
  EXPECT_NE(fp8->plan.image_key(), int4->plan.image_key());
  EXPECT_NE(fp8->plan.image_key(), as_stored->plan.image_key());
  EXPECT_THAT(fp8->plan.notes(), testing::Contains("8 matrices quantized to f8_e4m3 on the way"));
  EXPECT_THAT(int4->plan.notes(), testing::Contains("4 matrices quantized to int4 on the way"));
  EXPECT_THAT(int4->plan.notes(),
              testing::Contains("4 matrices not quantized: rows of 72 are no multiple of 32"));
}

// What `switchyard check` is for: sizes before a download.
TEST_F(PlanTest, WithoutWeightsSizesFollowFromTheConfiguration) {
  for (const std::string name : {"llama_defaults", "gpt_oss_published", "glm4_moe_air"}) {
    TempDir dir;
    std::filesystem::copy(GoldenModel(name), dir.path());
    v1::Model model = GoldenEntry(name);
    const auto whole = OpenGolden(model);
    for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
      if (entry.path().filename() != "config.json") std::filesystem::remove(entry.path());
    }
    model.set_checkpoint(dir.path());
    const auto planned = OpenModel(model, "cpu", *ops_, OpenFor::kPlan);
    ASSERT_TRUE(planned.ok()) << planned.status();
    EXPECT_EQ((*planned)->plan.image_bytes(), whole->plan.image_bytes());
    EXPECT_EQ((*planned)->plan.kv_smallest_bytes(), whole->plan.kv_smallest_bytes());
    EXPECT_THAT((*planned)->plan.notes(),
                testing::Contains(testing::AllOf(
                    HasSubstr("no weights here"), HasSubstr("neither model.safetensors"),
                    HasSubstr("sizes are those that config.json gives"))));
    EXPECT_THAT(std::string(StatusOf(model).message()), HasSubstr("neither model.safetensors"));
  }
}

TEST_F(PlanTest, ABrokenTokenizerIsFoundWhenPlanning) {
  TempDir dir;
  std::filesystem::copy(GoldenModel("llama_defaults"), dir.path(),
                        std::filesystem::copy_options::recursive);
  std::ofstream(dir.path() + "/tokenizer.json") << "{\"model\": {\"type\": \"Mystery\"}}";
  v1::Model model = GoldenEntry("llama_defaults");
  model.set_checkpoint(dir.path());
  EXPECT_THAT(std::string(StatusOf(model).message()), HasSubstr("tokenizer.json"));
}

}  // namespace
}  // namespace switchyard::worker
