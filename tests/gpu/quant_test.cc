// Every op that takes a matrix, on the GPU, with quantized weights of every kind, against the
// reference on the same weights as float32.

#include "tests/gpu/quant_cases.h"

namespace switchyard::kernels {
namespace {

struct Shape {
  int32_t rows;
  int64_t n, k;
};
const Shape kShapes[] = {
    {1, 1, 16},      {1, 6, 96},       {1, 130, 2880},  {1, 34, 4096},   {2, 7, 48},
    {3, 70, 40},     {5, 130, 1056},   {8, 34, 2880},   {9, 64, 256},    {16, 100, 640},
    {17, 31, 160},   {40, 66, 1056},   {64, 130, 17},   {130, 9, 2624},  {270, 200, 512},
    {65, 136, 1056}, {2, 34, 14336},   {3, 130, 4096},  {4, 40, 28672},  {4, 6000, 160},
    {6, 40, 8192},   {8, 6000, 288},   {7, 272, 4096},  {12, 300, 2880}, {33, 130, 2880},
    {64, 300, 1088}, {20, 130, 2880},  {32, 272, 4096}, {48, 6000, 288}, {64, 40, 14336},
    {9, 14336, 160}, {20, 14330, 288}, {40, 14300, 160}};

class GpuQuantTest : public GpuTest,
                     public ::testing::WithParamInterface<std::tuple<Shape, QuantCase>> {
 protected:
  const QuantCase format_ = std::get<1>(GetParam());
  const int32_t rows_ = std::get<0>(GetParam()).rows;
  const int64_t n_ = std::get<0>(GetParam()).n;
  const int64_t k_ = QuantWidth(format_, std::get<0>(GetParam()).k);
  const float spread_ = 1 / std::sqrt(static_cast<float>(k_));  // dots have spread 1
  Random random_{static_cast<uint32_t>(rows_ * 7919 + n_ * 31 + k_)};
  // In tiles, and of groups that are no even number of 128, scaled weights are rounded.
  bool rounded_ = rows_ > 16 || (format_.form.dtype == DType::kInt4 &&
                                 (format_.form.group != 128 || k_ % 256 != 0));

  ScratchShape Need(int32_t logit_rows = 0) {
    ScratchShape need;
    need.rows = rows_;
    need.hidden = static_cast<int32_t>(k_);
    need.intermediate = static_cast<int32_t>(n_);
    need.logit_rows = logit_rows;
    need.quantized = true;
    return need;
  }
  void CheckLinear();
  void CheckMlpInput();
};

TEST_P(GpuQuantTest, Linear) { CheckLinear(); }
TEST_P(GpuQuantTest, MlpInput) { CheckMlpInput(); }
TEST_P(GpuQuantTest, InvariantLinear) {
  MakeInvariant();
  rounded_ = true;
  CheckLinear();
}
TEST_P(GpuQuantTest, InvariantMlpInput) {
  MakeInvariant();
  rounded_ = true;
  CheckMlpInput();
}

void GpuQuantTest::CheckLinear() {
  const QuantMatrix w(random_, format_, n_, k_, 1, spread_);
  const std::vector<float> x = RandomBf16(random_, rows_ * k_), bias = RandomVector(random_, n_);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_bias(bias);
  DeviceScratch scratch(*ops_, Need());
  for (const auto& [accumulate, biased] :
       {std::pair(false, false), std::pair(true, true), std::pair(true, false)}) {
    std::vector<float> expected = RandomBf16(random_, rows_ * n_);
    DeviceBf16 out(expected);
    LinearArgs args = {rows_, x.data(), w.plain(), biased ? bias.data() : nullptr, accumulate};
    args.out = expected.data();
    ASSERT_TRUE(reference_->Linear(args, {}, nullptr).ok());
    args.x = device_x.data();
    args.w = w.quantized();
    args.bias = biased ? device_bias.data() : nullptr;
    args.out = out.data();
    ASSERT_STREQ(ops_->Linear(args, scratch, nullptr).message, nullptr);
    // cuBLASLt may round a product before it is added to what is there.
    const double dot = (accumulate && !biased ? 2 : 1) * kDotOfRounded;
    ExpectNear(expected, out.GetFloats(), rounded_ ? dot : 3e-4, kBf16Epsilon, "linear");
  }
}

void GpuQuantTest::CheckMlpInput() {
  const QuantMatrix w(random_, format_, 2 * n_, k_, 1, spread_);
  const std::vector<float> x = RandomBf16(random_, rows_ * k_), norm = RandomVector(random_, k_);
  const std::vector<float> bias = RandomVector(random_, 2 * n_);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_norm(norm), device_bias(bias);
  DeviceScratch scratch(*ops_, Need());
  for (const bool plain : {false, true}) {
    std::vector<float> expected(rows_ * n_);
    DeviceBf16 out(rows_ * n_);
    MlpInputArgs args = {rows_, x.data(), plain ? nullptr : norm.data(), 1e-5f, w.plain()};
    args.bias = plain ? nullptr : bias.data();
    args.activation = plain ? Activation::kSwigluClamped : Activation::kSilu;
    args.out = expected.data();
    ASSERT_TRUE(reference_->MlpInput(args, {}, nullptr).ok());
    args.x = device_x.data();
    args.gate_up = w.quantized();
    args.norm = plain ? nullptr : device_norm.data();
    args.bias = plain ? nullptr : device_bias.data();
    args.out = out.data();
    ASSERT_STREQ(ops_->MlpInput(args, scratch, nullptr).message, nullptr);
    ExpectNear(expected, out.GetFloats(), plain && !rounded_ ? 2e-3 : 12 * kDotOfRounded,
               2 * kBf16Epsilon, "mlp input");
  }
}

TEST_P(GpuQuantTest, HeadOfSomeRows) {
  const QuantMatrix w(random_, format_, n_, k_, 1, spread_);
  const std::vector<float> x = RandomBf16(random_, rows_ * k_), norm = RandomVector(random_, k_);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_norm(norm);
  std::vector<int32_t> row;
  for (int32_t r = rows_ - 1; r >= 0; r -= 2) row.push_back(r);
  const int32_t count = static_cast<int32_t>(row.size());
  DeviceArray<int32_t> device_row(row);
  DeviceScratch scratch(*ops_, Need(count));
  std::vector<float> expected(count * n_);
  DeviceArray<float> out(count * n_);
  HeadArgs args = {count, row.data(), x.data(), norm.data(), 1e-6f, w.plain(), 30.0f};
  args.logits = expected.data();
  ASSERT_TRUE(reference_->Head(args, {}, nullptr).ok());
  args = {count, device_row.data(), device_x.data(), device_norm.data(),
          1e-6f, w.quantized(),     30.0f,           out.data()};
  ASSERT_STREQ(ops_->Head(args, scratch, nullptr).message, nullptr);
  ExpectNear(expected, out.Get(), 2 * kDotOfRounded, kBf16Epsilon, "head");
}

std::string NameOf(const ::testing::TestParamInfo<std::tuple<Shape, QuantCase>>& info) {
  const auto& [shape, format] = info.param;
  return std::string(format.name) + "_" + std::to_string(shape.rows) + "_" +
         std::to_string(shape.n) + "_" + std::to_string(shape.k);
}
INSTANTIATE_TEST_SUITE_P(Shapes, GpuQuantTest,
                         ::testing::Combine(::testing::ValuesIn(kShapes),
                                            ::testing::ValuesIn(kQuantCases)),
                         NameOf);

class GpuQuantOpsTest : public GpuTest, public ::testing::WithParamInterface<QuantCase> {
 protected:
  void CheckMoeExperts(bool shared);

  const QuantCase format_ = GetParam();
  Random random_{7};
};

// The largest that a normed element can be, the root of the width, times a large weight of the
// norm.
TEST_P(GpuQuantOpsTest, RowsOfOneLargeElement) {
  constexpr int64_t kN = 130;
  const int64_t k = QuantWidth(format_, 4096);
  const QuantMatrix w(random_, format_, kN, k, 1, 1 / std::sqrt(static_cast<float>(k)));
  for (const int32_t rows : {1, 3, 16, 33, 64}) {
    std::vector<float> x = RandomBf16(random_, rows * k, 1e-2f), norm = RandomVector(random_, k);
    std::vector<int32_t> row(rows);
    for (int32_t r = 0; r < rows; ++r) {
      row[r] = r;
      x[r * k + r] = 1024;
      norm[r] = 1000;
    }
    DeviceBf16 device_x(x);
    DeviceArray<float> device_norm(norm), out(rows * kN);
    DeviceArray<int32_t> device_row(row);
    ScratchShape need;
    need.rows = need.logit_rows = rows;
    need.hidden = static_cast<int32_t>(k);
    need.quantized = true;
    DeviceScratch scratch(*ops_, need);
    std::vector<float> expected(rows * kN);
    HeadArgs args = {rows, row.data(), x.data(), norm.data(), 1e-6f, w.plain()};
    args.logits = expected.data();
    ASSERT_TRUE(reference_->Head(args, {}, nullptr).ok());
    args = {rows, device_row.data(), device_x.data(), device_norm.data(), 1e-6f, w.quantized()};
    args.logits = out.data();
    ASSERT_STREQ(ops_->Head(args, scratch, nullptr).message, nullptr);
    ExpectNear(expected, out.Get(), 1000 * kDotOfRounded, 2 * kBf16Epsilon, "head");
  }
}

TEST_P(GpuQuantOpsTest, AttentionInput) {
  constexpr int32_t kDim = 64, kQ = 6, kKv = 2;
  const int64_t width = (kQ + 2 * kKv) * kDim, hidden = QuantWidth(format_, 1300);
  const std::vector<TestSequence> batches[] = {
      {{300, 1}}, {{9, 1}, {0, 2}},  {{0, 3}, {31, 1}}, {{7, 9}}, {{0, 37}, {255, 1}, {19, 9}},
      {{0, 25}},  {{0, 60}, {5, 4}}, {{0, 131}}};
  for (const auto& sequences : batches) {
    for (const bool heads : {false, true}) {
      TestStep step(random_, sequences, kKv, kDim, DType::kBF16, 1);
      DeviceStep device_step(step, static_cast<int32_t>(sequences.size()));
      const int32_t rows = step.rows().rows;
      const QuantMatrix w(random_, format_, width, hidden, 1,
                          1 / std::sqrt(static_cast<float>(hidden)));
      const std::vector<float> x = RandomBf16(random_, rows * hidden);
      const std::vector<float> norm = RandomVector(random_, hidden);
      const std::vector<float> bias = RandomVector(random_, width);
      const std::vector<float> head_norm = RandomVector(random_, kDim);
      DeviceBf16 device_x(x);
      DeviceArray<float> device_norm(norm), device_bias(bias), device_head_norm(head_norm);
      std::vector<float> inv_freq;
      for (int i = 0; i < kDim / 4; ++i) inv_freq.push_back(std::pow(1e4f, -4.0f * i / kDim));
      DeviceArray<float> device_inv_freq(inv_freq);
      std::vector<float> expected(rows * kQ * kDim);
      DeviceBf16 q(expected);
      AttentionInputArgs args;
      args.rows = step.rows();
      args.x = x.data();
      args.norm = norm.data();
      args.eps = 1e-6f;
      args.qkv = w.plain();
      args.bias = bias.data();
      args.q_norm = heads ? head_norm.data() : nullptr;
      args.q_heads = kQ;
      args.kv_heads = kKv;
      args.head_dim = kDim;
      args.rope = {inv_freq.data(), kDim / 2, 1.25f};
      args.kv = step.kv();
      args.q = expected.data();
      ASSERT_TRUE(reference_->AttentionInput(args, {}, nullptr).ok());
      ScratchShape shape = step.shape();
      shape.hidden = static_cast<int32_t>(hidden);
      shape.q_heads = kQ;
      shape.quantized = true;
      DeviceScratch scratch(*ops_, shape);
      args.rows = device_step.rows;
      args.x = device_x.data();
      args.norm = device_norm.data();
      args.qkv = w.quantized();
      args.bias = device_bias.data();
      args.q_norm = heads ? device_head_norm.data() : nullptr;
      args.rope.inv_freq = device_inv_freq.data();
      args.kv = device_step.kv;
      args.q = q.data();
      ASSERT_STREQ(ops_->AttentionInput(args, scratch, nullptr).message, nullptr);
      const double tolerance = (heads ? 8 : 3) * kDotOfRounded;
      ExpectNear(expected, q.GetFloats(), tolerance, kBf16Epsilon, "q");
      std::vector<float> pool, expected_pool;
      const std::vector<uint8_t> bytes = device_step.pool.Get();
      for (size_t i = 0; i < bytes.size() / 2; ++i) {
        pool.push_back(static_cast<float>(ReferenceFloat(bytes.data(), DType::kBF16, i)));
        expected_pool.push_back(
            static_cast<float>(ReferenceFloat(step.pool().data(), DType::kBF16, i)));
      }
      ExpectNear(expected_pool, pool, tolerance, 2 * kBf16Epsilon, "the pool");
    }
  }
}

TEST_P(GpuQuantOpsTest, MoeRoute) {
  constexpr int32_t kExperts = 12, kChosen = 12;  // all, so that the order alone may differ
  const int64_t hidden = QuantWidth(format_, 300);
  for (const int32_t rows : {1, 5, 40}) {
    const QuantMatrix router(random_, format_, kExperts, hidden, 1,
                             1 / std::sqrt(static_cast<float>(hidden)));
    const std::vector<float> x = RandomBf16(random_, rows * hidden);
    const std::vector<float> norm(hidden, 1.0f);
    DeviceBf16 device_x(x), device_normed(rows * hidden);
    DeviceArray<float> device_norm(norm), device_weights(rows * kChosen);
    DeviceArray<int32_t> device_ids(rows * kChosen);
    std::vector<float> normed(rows * hidden), weights(rows * kChosen);
    std::vector<int32_t> ids(rows * kChosen);
    MoeRouteArgs args = {rows, x.data(), norm.data(), 1e-6f, router.plain()};
    args.chosen = kChosen;
    args.normed = normed.data();
    args.ids = ids.data();
    args.weights = weights.data();
    ASSERT_TRUE(reference_->MoeRoute(args, {}, nullptr).ok());
    args.x = device_x.data();
    args.norm = device_norm.data();
    args.router = router.quantized();
    args.normed = device_normed.data();
    args.ids = device_ids.data();
    args.weights = device_weights.data();
    ScratchShape need;
    need.rows = rows;
    need.experts = kExperts;
    need.chosen = kChosen;
    need.hidden = static_cast<int32_t>(hidden);
    DeviceScratch scratch(*ops_, need);
    ASSERT_STREQ(ops_->MoeRoute(args, scratch, nullptr).message, nullptr);
    const std::vector<int32_t> actual_ids = device_ids.Get();
    const std::vector<float> actual = device_weights.Get();
    for (int32_t r = 0; r < rows; ++r) {
      std::vector<float> by_expert(kExperts), actual_by_expert(kExperts);
      for (int32_t i = r * kChosen; i < (r + 1) * kChosen; ++i) {
        by_expert[ids[i]] = weights[i];
        ASSERT_TRUE(actual_ids[i] >= 0 && actual_ids[i] < kExperts);
        actual_by_expert[actual_ids[i]] = actual[i];
      }
      ExpectNear(by_expert, actual_by_expert, kDotOfRounded, 0, "weights");
    }
  }
}

TEST_P(GpuQuantOpsTest, MoeExperts) { CheckMoeExperts(false); }
TEST_P(GpuQuantOpsTest, SharedExpert) { CheckMoeExperts(true); }
TEST_P(GpuQuantOpsTest, InvariantMoeExperts) {
  MakeInvariant();
  CheckMoeExperts(false);
}
TEST_P(GpuQuantOpsTest, InvariantSharedExpert) {
  MakeInvariant();
  CheckMoeExperts(true);
}

// With biases, or with a shared expert.
void GpuQuantOpsTest::CheckMoeExperts(bool shared) {
  constexpr int32_t kExperts = 6, kChosen = 3;
  // Of one row so many that on 132 multiprocessors the down product sums up the experts, too.
  const std::pair<int32_t, int64_t> kSizes[] = {{1, 300}, {1, 2048}, {1, 4096}, {2, 300},
                                                {4, 300}, {5, 300},  {20, 300}, {150, 300}};
  for (const auto& [rows, width] : kSizes) {
    const int64_t hidden = QuantWidth(format_, width), inner = QuantWidth(format_, 208);
    const float hidden_spread = 1 / std::sqrt(static_cast<float>(hidden));
    const float inner_spread = 1 / std::sqrt(static_cast<float>(inner));
    const QuantMatrix shared_gate_up(random_, format_, 2 * inner, hidden, 1, hidden_spread);
    const QuantMatrix shared_down(random_, format_, hidden, inner, 1, inner_spread);
    const QuantMatrix gate_up(random_, format_, 2 * inner, hidden, kExperts, hidden_spread);
    const QuantMatrix down(random_, format_, hidden, inner, kExperts, inner_spread);
    const std::vector<float> x = RandomBf16(random_, rows * hidden);
    const std::vector<float> bias = RandomVector(random_, 2 * inner * kExperts);
    const std::vector<float> down_bias = RandomVector(random_, hidden * kExperts);
    std::vector<int32_t> ids;
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < kChosen; ++i) ids.push_back((r * r + i * (1 + r % 2)) % kExperts);
    }
    const std::vector<float> weights = RandomVector(random_, rows * kChosen, 0.5f);
    DeviceBf16 device_x(x);
    DeviceArray<float> device_bias(bias), device_down_bias(down_bias), device_weights(weights);
    DeviceArray<int32_t> device_ids(ids);
    ScratchShape need;
    need.rows = rows;
    need.hidden = static_cast<int32_t>(hidden);
    need.experts = kExperts;
    need.chosen = kChosen;
    need.expert_intermediate = need.intermediate = static_cast<int32_t>(inner);
    need.quantized = shared;
    DeviceScratch scratch(*ops_, need);
    DeviceBf16 shared_inner(rows * inner);
    std::vector<float> expected = RandomBf16(random_, rows * hidden);
    DeviceBf16 out(expected);
    MoeExpertsArgs args = ExpertsArgs(rows, kChosen, x.data(), ids.data(), weights.data(),
                                      gate_up.plain(), down.plain());
    args.gate_up_bias = shared ? nullptr : bias.data();
    args.down_bias = shared ? nullptr : down_bias.data();
    if (shared) {
      args.shared_gate_up = shared_gate_up.plain();
      args.shared_down = shared_down.plain();
    }
    args.activation = Activation::kSwigluClamped;
    args.accumulate = true;
    args.out = expected.data();
    ASSERT_TRUE(reference_->MoeExperts(args, {}, nullptr).ok());
    args.x = device_x.data();
    args.ids = device_ids.data();
    args.weights = device_weights.data();
    args.gate_up = gate_up.quantized();
    args.gate_up_bias = shared ? nullptr : device_bias.data();
    args.down = down.quantized();
    args.down_bias = shared ? nullptr : device_down_bias.data();
    if (shared) {
      args.shared_gate_up = shared_gate_up.quantized();
      args.shared_down = shared_down.quantized();
      args.shared_inner = shared_inner.data();
    }
    args.out = out.data();
    ASSERT_STREQ(ops_->MoeExperts(args, scratch, nullptr).message, nullptr);
    ExpectNear(expected, out.GetFloats(), (shared ? 9 : 6) * kDotOfRounded, kBf16Epsilon,
               "experts");
  }
}

TEST_P(GpuQuantOpsTest, Embed) {
  TestStep step(random_, {{3, 5}, {0, 1}, {9, 1}}, 1, 16, DType::kBF16, 2);
  DeviceStep device_step(step, 3);
  const int64_t width = QuantWidth(format_, 300);
  const QuantMatrix table(random_, format_, 50, width, 1, 1.0f);
  std::vector<float> expected(9 * width);  // padding: zeros
  DeviceBf16 out(9 * width);
  EmbedArgs args = {step.rows(), step.tokens(), table.plain(), 6.5f, expected.data()};
  ASSERT_TRUE(reference_->Embed(args, {}, nullptr).ok());
  args = {device_step.rows, device_step.tokens, table.quantized(), 6.5f, out.data()};
  ASSERT_STREQ(ops_->Embed(args, {}, nullptr).message, nullptr);
  ExpectNear(expected, out.GetFloats(), 1e-6, kBf16Epsilon, "embed");
}

INSTANTIATE_TEST_SUITE_P(Formats, GpuQuantOpsTest, ::testing::ValuesIn(kQuantCases),
                         [](const auto& info) { return std::string(info.param.name); });

using GpuQuantRefusalTest = GpuTest;
TEST_F(GpuQuantRefusalTest, WhatOpsDoesNotDescribe) {
  DeviceBf16 x(64), out(64);
  DeviceArray<uint8_t> bytes(4096);
  const auto run = [&](const Matrix& w) {
    LinearArgs args = {1, x.data(), w};
    args.out = out.data();
    return ops_->Linear(args, {}, nullptr).message;
  };
  const void* p = bytes.data();
  EXPECT_STREQ(run({p, DType::kF8E4M3, 1, 64}), "quantized weights without scales");
  EXPECT_STREQ(run({p, DType::kF8E4M3, 1, 64, 1, p, nullptr, 64}),
               "fp8 scales of a group that is not 128");
  EXPECT_STREQ(run({p, DType::kInt4, 1, 64, 1, p, nullptr, 16}),
               "int4 groups are no multiple of 32, or do not divide the width");
  EXPECT_STREQ(run({p, DType::kMxfp4, 1, 64, 1, p, nullptr, 64}), "mxfp4 groups are not of 32");
}

}  // namespace
}  // namespace switchyard::kernels
