// batch_invariant on the GPU: bit for bit, no row of any op depends on how many rows there are,
// which they are, or how a sequence was cut into steps. And it is right: the tests of the other
// files, over these kernels.

#include <map>
#include <optional>

#include "tests/gpu/quant_cases.h"

namespace switchyard::kernels {
namespace {

class GpuInvarianceTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped()) MakeInvariant();
  }
};

// First row and number of rows: every kernel and tile that few, more and many rows choose.
struct Cut {
  int32_t first, rows;
};
constexpr int32_t kAllRows = 300;
const Cut kCuts[] = {{0, 1},   {299, 1},  {7, 2},    {30, 16}, {3, 17}, {101, 40},
                     {13, 64}, {100, 65}, {40, 128}, {5, 129}, {0, 299}};

template <class T>
void ExpectRowsSame(const std::vector<T>& all, const std::vector<T>& some, const Cut& cut,
                    int64_t width, const char* what) {
  ASSERT_EQ(static_cast<int64_t>(some.size()), cut.rows * width);
  for (int64_t i = 0; i < cut.rows * width; ++i) {
    ASSERT_EQ(all[cut.first * width + i], some[i])
        << what << ": element " << i % width << " of row " << cut.first + i / width
        << " in company of " << cut.rows << " rows";
  }
}

// ---- Products

struct WeightCase {
  const char* name;
  bool plain;  // of `dtype`, else `quant`
  DType dtype;
  QuantCase quant;
};
const WeightCase kWeightCases[] = {
    {"bf16", true, DType::kBF16, {}},        {"f16", true, DType::kF16, {}},
    {"fp8_rows", false, {}, kQuantCases[0]}, {"fp8_blocks", false, {}, kQuantCases[1]},
    {"int4_32", false, {}, kQuantCases[2]},  {"int4_96", false, {}, kQuantCases[4]},
    {"int4_128", false, {}, kQuantCases[5]}, {"mxfp4", false, {}, kQuantCases[7]}};
void PrintTo(const WeightCase& c, std::ostream* out) { *out << c.name; }

class GpuInvariantProductTest : public GpuInvarianceTest,
                                public ::testing::WithParamInterface<WeightCase> {
 protected:
  int64_t Width(int64_t k) const { return GetParam().plain ? k : QuantWidth(GetParam().quant, k); }
  TestMatrix Weights(int64_t n, int64_t k, int64_t batch = 1) {
    const float spread = 1 / std::sqrt(static_cast<float>(k));
    return GetParam().plain ? RandomMatrix(random_, GetParam().dtype, n, k, batch, spread)
                            : RandomMatrix(random_, GetParam().quant.form, n, k, batch, spread);
  }
  Random random_{11};
};

TEST_P(GpuInvariantProductTest, Linear) {
  for (const auto& [n, wanted] : {std::pair<int64_t, int64_t>{200, 1056}, {40, 75}, {136, 4160}}) {
    const int64_t k = Width(wanted);
    DeviceMatrix w(Weights(n, k));
    const std::vector<float> before = RandomBf16(random_, kAllRows * n);
    DeviceBf16 x(RandomBf16(random_, kAllRows * k)), all(before);
    DeviceArray<float> bias(RandomVector(random_, n));
    LinearArgs args = {kAllRows, x.data(), w.matrix, bias.data(), true, all.data()};
    ASSERT_STREQ(ops_->Linear(args, {}, nullptr).message, nullptr);
    const std::vector<uint16_t> expected = all.Get();
    for (const Cut& cut : kCuts) {
      DeviceBf16 some(std::vector<float>(before.begin() + cut.first * n,
                                         before.begin() + (cut.first + cut.rows) * n));
      args.rows = cut.rows;
      args.x = x.data() + cut.first * k;
      args.out = some.data();
      ASSERT_STREQ(ops_->Linear(args, {}, nullptr).message, nullptr);
      ExpectRowsSame(expected, some.Get(), cut, n, "linear");
    }
  }
}

TEST_P(GpuInvariantProductTest, MlpInputAndHead) {
  const int64_t n = 104, k = Width(1056);
  DeviceMatrix w(Weights(2 * n, k));
  DeviceBf16 x(RandomBf16(random_, kAllRows * k));
  DeviceArray<float> norm(RandomVector(random_, k)), bias(RandomVector(random_, 2 * n));
  ScratchShape need;
  need.rows = need.logit_rows = kAllRows;
  need.hidden = static_cast<int32_t>(k);
  need.intermediate = static_cast<int32_t>(n);
  DeviceScratch scratch(*ops_, need);
  for (const auto activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kSwigluClamped}) {
    const auto run = [&](const Cut& cut) {
      DeviceBf16 out(cut.rows * n);
      MlpInputArgs args = {cut.rows, x.data() + cut.first * k, norm.data(), 1e-5f, w.matrix};
      args.bias = bias.data();
      args.activation = activation;
      args.out = out.data();
      EXPECT_STREQ(ops_->MlpInput(args, scratch, nullptr).message, nullptr);
      return out.Get();
    };
    const std::vector<uint16_t> expected = run({0, kAllRows});
    for (const Cut& cut : kCuts) ExpectRowsSame(expected, run(cut), cut, n, "mlp input");
  }
  const auto logits = [&](const Cut& cut) {
    std::vector<int32_t> rows;
    for (int32_t r = 0; r < cut.rows; ++r) rows.push_back(cut.first + r);
    DeviceArray<int32_t> row(rows);
    DeviceArray<float> out(cut.rows * 2 * n);
    HeadArgs args = {cut.rows, row.data(), x.data(), norm.data(), 1e-6f, w.matrix, 30.0f};
    args.logits = out.data();
    EXPECT_STREQ(ops_->Head(args, scratch, nullptr).message, nullptr);
    return out.Get();
  };
  const std::vector<float> expected = logits({0, kAllRows});
  for (const Cut& cut : kCuts) ExpectRowsSame(expected, logits(cut), cut, 2 * n, "head");
}

TEST_P(GpuInvariantProductTest, Experts) {
  constexpr int32_t kExperts = 9, kChosen = 3;
  const int64_t hidden = Width(264), inner = Width(72);
  DeviceMatrix gate_up(Weights(2 * inner, hidden, kExperts)),
      down(Weights(hidden, inner, kExperts));
  DeviceBf16 x(RandomBf16(random_, kAllRows * hidden));
  DeviceArray<float> weights(RandomVector(random_, kAllRows * kChosen));
  DeviceArray<float> bias(RandomVector(random_, 2 * inner * kExperts));
  std::vector<int32_t> chosen;
  for (int32_t r = 0; r < kAllRows; ++r) {
    for (int32_t i = 0; i < kChosen; ++i) chosen.push_back((r * r + i * (1 + r % 2)) % kExperts);
  }
  DeviceArray<int32_t> ids(chosen);
  ScratchShape need;
  need.rows = kAllRows;
  need.hidden = static_cast<int32_t>(hidden);
  need.experts = kExperts;
  need.chosen = kChosen;
  need.expert_intermediate = static_cast<int32_t>(inner);
  DeviceScratch scratch(*ops_, need);
  const auto run = [&](const Cut& cut) {
    DeviceBf16 out(cut.rows * hidden);
    MoeExpertsArgs args;
    args.rows = cut.rows;
    args.x = x.data() + cut.first * hidden;
    args.ids = ids.data() + cut.first * kChosen;
    args.weights = weights.data() + cut.first * kChosen;
    args.chosen = kChosen;
    args.gate_up = gate_up.matrix;
    args.gate_up_bias = bias.data();
    args.down = down.matrix;
    args.out = out.data();
    EXPECT_STREQ(ops_->MoeExperts(args, scratch, nullptr).message, nullptr);
    return out.Get();
  };
  const std::vector<uint16_t> expected = run({0, kAllRows});
  for (const Cut& cut : kCuts) ExpectRowsSame(expected, run(cut), cut, hidden, "experts");
}

TEST_P(GpuInvariantProductTest, Route) {
  constexpr int32_t kExperts = 24, kChosen = 4;
  const int64_t hidden = Width(1056);
  DeviceMatrix router(Weights(kExperts, hidden));
  DeviceBf16 x(RandomBf16(random_, kAllRows * hidden)), normed(kAllRows * hidden);
  DeviceArray<float> norm(RandomVector(random_, hidden));
  DeviceArray<int32_t> ids(kAllRows * kChosen);
  ScratchShape need;
  need.rows = kAllRows;
  need.hidden = static_cast<int32_t>(hidden);
  need.experts = kExperts;
  need.chosen = kChosen;
  DeviceScratch scratch(*ops_, need);
  const auto run = [&](const Cut& cut) {
    DeviceArray<float> weights(cut.rows * kChosen);
    MoeRouteArgs args = {cut.rows, x.data() + cut.first * hidden, norm.data(), 1e-6f,
                         router.matrix};
    args.chosen = kChosen;
    args.normed = normed.data();
    args.ids = ids.data();
    args.weights = weights.data();
    EXPECT_STREQ(ops_->MoeRoute(args, scratch, nullptr).message, nullptr);
    return weights.Get();
  };
  const std::vector<float> expected = run({0, kAllRows});
  for (const Cut& cut : kCuts) ExpectRowsSame(expected, run(cut), cut, kChosen, "route");
}

INSTANTIATE_TEST_SUITE_P(Weights, GpuInvariantProductTest, ::testing::ValuesIn(kWeightCases),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- Attention

struct HeadCase {
  int32_t head_dim, kv_heads, ratio, window;
  bool sinks;
  DType kv;
};
const HeadCase kHeadCases[] = {
    {128, 2, 4, 0, false, DType::kBF16},    {64, 2, 8, 128, true, DType::kBF16},
    {256, 1, 2, 0, false, DType::kBF16},    {256, 1, 4, 1024, false, DType::kBF16},
    {128, 1, 12, 5000, true, DType::kBF16}, {64, 1, 30, 0, true, DType::kBF16},
    {128, 2, 1, 0, false, DType::kBF16},    {80, 2, 3, 0, true, DType::kBF16},
    {128, 2, 5, 0, false, DType::kF8E4M3},  {256, 1, 2, 300, true, DType::kF8E4M3},
    {64, 1, 8, 0, true, DType::kF8E4M3}};

class GpuInvariantAttentionTest : public GpuInvarianceTest,
                                  public ::testing::WithParamInterface<HeadCase> {
 protected:
  // Rows `from` on of the queries at `q`; `longest`: most rows of a sequence.
  std::vector<uint16_t> Attend(TestStep& step, DeviceBf16& q, int64_t from, int32_t longest) {
    const HeadCase& c = GetParam();
    const int32_t heads = c.kv_heads * c.ratio, rows = step.rows().rows;
    DeviceStep device_step(step, 3);
    ScratchShape shape = step.shape();
    shape.q_heads = heads;
    DeviceScratch scratch(*ops_, shape);
    DeviceBf16 out(int64_t{rows} * heads * c.head_dim);
    AttentionArgs args;
    args.rows = device_step.rows;
    args.rows.longest = longest;
    args.q = q.data() + from * heads * c.head_dim;
    args.q_heads = heads;
    args.kv_heads = c.kv_heads;
    args.head_dim = c.head_dim;
    args.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    args.window = c.window;
    args.sinks = c.sinks ? sinks_->data() : nullptr;
    args.kv = device_step.kv;
    args.out = out.data();
    EXPECT_STREQ(ops_->Attention(args, scratch, nullptr).message, nullptr);
    return out.Get();
  }
  void SetUp() override {
    GpuInvarianceTest::SetUp();
    if (!IsSkipped()) sinks_.emplace(RandomVector(random_, 64));
  }
  Random random_{17};
  std::optional<DeviceArray<float>> sinks_;
};

// Three sequences from their first position on, in one step; then each in steps of its own, of
// many, few and single rows; long enough for every number of parts, and for parts of 512.
TEST_P(GpuInvariantAttentionTest, HoweverASequenceIsCut) {
  const HeadCase& c = GetParam();
  const std::vector<int32_t> lengths = {4700, 70, 1025};
  TestStep step(random_, {{0, lengths[0]}, {0, lengths[1]}, {0, lengths[2]}}, c.kv_heads,
                c.head_dim, c.kv);
  const int64_t width = int64_t{c.kv_heads} * c.ratio * c.head_dim;
  DeviceBf16 q(RandomBf16(random_, (4700 + 70 + 1025) * width));
  const std::vector<uint16_t> expected = Attend(step, q, 0, lengths[0]);
  int32_t start = 0;
  for (int32_t s = 0; s < 3; ++s) {
    const int32_t length = lengths[s];
    std::vector<Cut> cuts = {{0, 1}, {0, length}, {length - 1, 1}, {1, 2}, {length / 2, 1}};
    for (const int32_t first : {63, 64, 255, 256, 1023, 1024, 4095, 4096, 4097}) {
      if (first < length) cuts.push_back({first, 1});
      if (first + 37 < length) cuts.push_back({first, 37});
      if (first + 300 < length) cuts.push_back({first - 3, 300});
    }
    for (const Cut& cut : cuts) {
      step.SetRows(2 - s, cut.first, cut.rows);
      ExpectRowsSame(expected, Attend(step, q, start + cut.first, cut.rows),
                     {start + cut.first, cut.rows}, width, "attention");
    }
    start += length;
  }
}

// Rows that go on alone, beside others that go on and one that begins.
TEST_P(GpuInvariantAttentionTest, InCompany) {
  const HeadCase& c = GetParam();
  const int64_t width = int64_t{c.kv_heads} * c.ratio * c.head_dim;
  for (const int32_t fresh : {1, 40}) {
    TestStep step(random_, {{4300, 1}, {19, fresh}, {300, 1}}, c.kv_heads, c.head_dim, c.kv);
    DeviceBf16 q(RandomBf16(random_, (fresh + 2) * width));
    const std::vector<uint16_t> expected = Attend(step, q, 0, fresh);
    const std::vector<std::pair<int32_t, Cut>> alone = {
        {2, {4300, 1}}, {1, {19, fresh}}, {0, {300, 1}}};
    int32_t row = 0;
    for (const auto& [slot, cut] : alone) {
      step.SetRows(slot, cut.first, cut.rows);
      ExpectRowsSame(expected, Attend(step, q, row, cut.rows), {row, cut.rows}, width, "attention");
      row += cut.rows;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Heads, GpuInvariantAttentionTest, ::testing::ValuesIn(kHeadCases));

// q and what comes to lie in the pool, of a prompt at once and row by row.
TEST_F(GpuInvarianceTest, AttentionInput) {
  constexpr int32_t kDim = 64, kQ = 6, kKv = 2, kRows = 150;
  constexpr int64_t kWidth = (kQ + 2 * kKv) * kDim, kHidden = 512;
  Random random(23);
  for (const DType kv : {DType::kBF16, DType::kF8E4M3}) {
    for (const QuantCase* format :
         {static_cast<const QuantCase*>(nullptr), &kQuantCases[0], &kQuantCases[5]}) {
      TestStep step(random, {{0, kRows}}, kKv, kDim, kv);
      const float spread = 1 / std::sqrt(static_cast<float>(kHidden));
      DeviceMatrix w(format == nullptr
                         ? RandomMatrix(random, DType::kBF16, kWidth, kHidden, 1, spread)
                         : RandomMatrix(random, format->form, kWidth, kHidden, 1, spread));
      DeviceBf16 x(RandomBf16(random, kRows * kHidden));
      DeviceArray<float> norm(RandomVector(random, kHidden)), bias(RandomVector(random, kWidth));
      std::vector<float> frequencies;
      for (int i = 0; i < kDim / 2; ++i) frequencies.push_back(std::pow(1e4f, -2.0f * i / kDim));
      DeviceArray<float> inv_freq(frequencies);
      // Into the pool of `into`, which has that of `step` else.
      const auto run = [&](DeviceStep& into, int32_t first, int32_t rows) {
        DeviceBf16 q(rows * kQ * kDim);
        step.SetRows(0, first, rows);
        DeviceStep place(step, 1);
        AttentionInputArgs args;
        args.rows = place.rows;
        args.x = x.data() + first * kHidden;
        args.norm = norm.data();
        args.eps = 1e-6f;
        args.qkv = w.matrix;
        args.bias = bias.data();
        args.q_heads = kQ;
        args.kv_heads = kKv;
        args.head_dim = kDim;
        args.rope = {inv_freq.data(), kDim, 1.0f};
        args.kv = into.kv;
        args.q = q.data();
        ScratchShape shape = step.shape();
        shape.rows = kRows;
        shape.hidden = kHidden;
        shape.q_heads = kQ;
        DeviceScratch scratch(*ops_, shape);
        EXPECT_STREQ(ops_->AttentionInput(args, scratch, nullptr).message, nullptr);
        return q.Get();
      };
      DeviceStep at_once(step, 1), row_by_row(step, 1);
      const std::vector<uint16_t> expected = run(at_once, 0, kRows);
      for (int32_t first = 0; first < kRows;) {
        const int32_t rows = first < 40 ? 1 : std::min(kRows - first, 70);
        ExpectRowsSame(expected, run(row_by_row, first, rows), {first, rows}, kQ * kDim, "q");
        first += rows;
      }
      EXPECT_EQ(at_once.pool.Get(), row_by_row.pool.Get());
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
