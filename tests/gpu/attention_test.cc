// AttentionInput and Attention on the GPU against the reference: head sizes with a tile and
// without, head ratios up to 30, windows, sinks, q and k norms, partial rotation, mixes of long and
// short, contexts long enough for the finest cut; KV as bf16 and as fp8, also where it is NaN.

#include "tests/gpu/device_data.h"

namespace switchyard::kernels {
namespace {

struct Case {
  int32_t head_dim, kv_heads, ratio, window;
  bool sinks;
};
const Case kCases[] = {{16, 2, 1, 0, false},  {24, 1, 3, 0, true},      {80, 2, 4, 37, false},
                       {64, 2, 8, 128, true}, {64, 1, 30, 0, false},    {64, 2, 4, 16, true},
                       {128, 2, 4, 0, false}, {128, 1, 12, 300, false}, {128, 3, 1, 5, true},
                       {256, 1, 2, 0, false}, {256, 2, 4, 200, true}};

class GpuAttentionTest : public GpuTest, public ::testing::WithParamInterface<Case> {
 protected:
  struct Results {
    std::vector<float> expected, actual;
  };
  Results Attend(TestStep& step, const std::vector<TestSequence>& sequences);
  void CheckAttention(DType kv);
  void CheckThatNanIsSeen(DType kv);
  void CheckAttentionInput(DType kv);

  const Case case_ = GetParam();
  const int32_t q_heads_ = case_.kv_heads * case_.ratio;
  Random random_{static_cast<uint32_t>(case_.head_dim * 131 + case_.ratio)};
};

TEST_P(GpuAttentionTest, Attention) { CheckAttention(DType::kBF16); }
TEST_P(GpuAttentionTest, AttentionOverFp8) { CheckAttention(DType::kF8E4M3); }
TEST_P(GpuAttentionTest, AttentionInput) { CheckAttentionInput(DType::kBF16); }
TEST_P(GpuAttentionTest, AttentionInputAsFp8) { CheckAttentionInput(DType::kF8E4M3); }
TEST_P(GpuAttentionTest, InvariantAttention) {
  MakeInvariant();
  CheckAttention(DType::kBF16);
}
TEST_P(GpuAttentionTest, InvariantAttentionOverFp8) {
  MakeInvariant();
  CheckAttention(DType::kF8E4M3);
}
TEST_P(GpuAttentionTest, AttentionInputWithoutCublas) {
  LeaveCublasOut();
  CheckAttentionInput(DType::kBF16);
}

void GpuAttentionTest::CheckAttention(DType kv) {
  std::vector<TestSequence> many;  // fewer parts each, short and long
  for (int32_t i = 0; i < 70; ++i) many.push_back({i == 3 ? 1100 : i * 7 % 150, 1});
  const std::vector<TestSequence> batches[] = {{{0, 1}},
                                               {{511, 1}},
                                               {{0, 37}, {255, 1}, {256, 2}, {19, 9}, {63, 1}},
                                               {{2300, 3}, {0, 131}, {77, 140}},
                                               {{4200, 1}, {0, 1}, {64, 1}},
                                               {{2047, 1}, {2048, 1}},
                                               {many.begin(), many.begin() + 20},
                                               many};
  for (const auto& sequences : batches) {
    TestStep step(random_, sequences, case_.kv_heads, case_.head_dim, kv, 3);
    const Results of = Attend(step, sequences);
    // Probabilities are rounded to bf16 before they weigh values of up to 5.
    ExpectNear(of.expected, of.actual, 5 * kBf16Epsilon / 2, kBf16Epsilon, "attention");
  }
}

GpuAttentionTest::Results GpuAttentionTest::Attend(TestStep& step,
                                                   const std::vector<TestSequence>& sequences) {
  DeviceStep device_step(step, static_cast<int32_t>(sequences.size()));
  const int64_t count = int64_t{step.rows().rows} * q_heads_ * case_.head_dim;
  const std::vector<float> q = RandomBf16(random_, count);
  const std::vector<float> sinks = RandomVector(random_, q_heads_);
  DeviceBf16 device_q(q);
  DeviceArray<float> device_sinks(sinks);
  std::vector<float> expected(count);
  DeviceBf16 out(expected);
  AttentionArgs args;
  args.rows = step.rows();
  args.q = q.data();
  args.q_heads = q_heads_;
  args.kv_heads = case_.kv_heads;
  args.head_dim = case_.head_dim;
  args.scale = 1.0f / std::sqrt(static_cast<float>(case_.head_dim));
  args.window = case_.window;
  args.sinks = case_.sinks ? sinks.data() : nullptr;
  args.kv = step.kv();
  args.out = expected.data();
  EXPECT_TRUE(reference_->Attention(args, {}, nullptr).ok());
  ScratchShape shape = step.shape();
  shape.q_heads = q_heads_;
  DeviceScratch scratch(*ops_, shape);
  args.rows = device_step.rows;
  args.rows.longest = 0;
  for (const TestSequence& s : sequences) args.rows.longest = std::max(args.rows.longest, s.fresh);
  args.q = device_q.data();
  args.sinks = case_.sinks ? device_sinks.data() : nullptr;
  args.kv = device_step.kv;
  args.out = out.data();
  EXPECT_STREQ(ops_->Attention(args, scratch, nullptr).message, nullptr);
  return {expected, out.GetFloats()};
}

// One element of a key, or of a value, that the last row of each sequence sees; by offset.
void PutNan(TestStep& step, const std::vector<TestSequence>& sequences, int64_t offset,
            int32_t head_dim) {
  const KvView kv = step.kv();
  for (size_t s = 0; s < sequences.size(); ++s) {
    const int32_t position = sequences[s].past + sequences[s].fresh - 2;
    const int64_t slot = step.rows().sequence_slot[s];
    const int64_t block = kv.table[slot * kv.table_stride + position / kv.block_tokens];
    const int64_t element = position % kv.block_tokens * head_dim + 3;  // of the first head
    uint8_t* at =
        step.pool().data() + block * kv.block_bytes + offset + DTypeBytes(kv.dtype, element);
    std::fill_n(at, DTypeBytes(kv.dtype, 1), s % 2 == 0 ? 0xff : 0x7f);
  }
}

// Damaged weights are to be seen, also by rows that see them through the KV alone. Rows in front of
// it may be NaN as well: they weigh it with zero.
void GpuAttentionTest::CheckThatNanIsSeen(DType kv) {
  const std::vector<TestSequence> batches[] = {
      {{70, 1}}, {{4200, 1}, {90, 1}}, {{40, 5}, {200, 1}, {0, 131}}};
  for (const auto& sequences : batches) {
    for (const bool value : {false, true}) {
      TestStep step(random_, sequences, case_.kv_heads, case_.head_dim, kv, 3);
      PutNan(step, sequences, value ? step.kv().value_offset : step.kv().key_offset,
             case_.head_dim);
      const Results of = Attend(step, sequences);
      size_t seen = 0, expected = 0;
      for (size_t i = 0; i < of.expected.size(); ++i) {
        if (!std::isnan(of.expected[i])) continue;
        ++expected;
        seen += std::isnan(of.actual[i]);
      }
      EXPECT_GT(expected, 0u);
      EXPECT_EQ(seen, expected) << (value ? "of a value" : "of a key");
    }
  }
}

TEST_P(GpuAttentionTest, NanIsSeen) { CheckThatNanIsSeen(DType::kBF16); }
TEST_P(GpuAttentionTest, NanIsSeenOverFp8) { CheckThatNanIsSeen(DType::kF8E4M3); }
TEST_P(GpuAttentionTest, InvariantNanIsSeenOverFp8) {
  MakeInvariant();
  CheckThatNanIsSeen(DType::kF8E4M3);
}

// One sequence and one KV head: as many parts as there can be, so long that they are cut by a
// warp's tile. With a window the first key is in the midst of one.
class GpuLongAttentionTest : public GpuAttentionTest {
 protected:
  void CheckLong(DType kv) {
    const std::vector<TestSequence> sequences = {{20000, 1}};
    TestStep step(random_, sequences, case_.kv_heads, case_.head_dim, kv, 3);
    const Results of = Attend(step, sequences);
    // Of so many keys each has a small share, and what its probability was rounded by adds up at
    // random: a part that is missing is more than this.
    const double keys = case_.window > 0 ? case_.window : 20001;
    ExpectNear(of.expected, of.actual, 16 * kBf16Epsilon / 2 / std::sqrt(keys), kBf16Epsilon,
               "attention");
  }
};
TEST_P(GpuLongAttentionTest, Attention) { CheckLong(DType::kBF16); }
TEST_P(GpuLongAttentionTest, AttentionOverFp8) { CheckLong(DType::kF8E4M3); }

const Case kLongCases[] = {{64, 1, 2, 0, false},  {64, 1, 1, 17011, true},
                           {128, 1, 2, 0, false}, {128, 1, 1, 17011, true},
                           {256, 1, 2, 0, false}, {256, 1, 1, 17011, true}};

void GpuAttentionTest::CheckAttentionInput(DType kv) {
  const int32_t dim = case_.head_dim;
  const std::vector<TestSequence> batches[] = {
      {{300, 1}}, {{0, 37}, {255, 1}, {19, 9}}, {{0, 131}, {40, 2}}};
  for (const int64_t hidden : {75, 512}) {
    for (const auto& sequences : batches) {
      for (const int all : {0, 1, 2}) {
        const bool prefill = &sequences == &batches[2];
        if (prefill && (all == 0 || hidden == 75)) continue;  // the oracle takes its time
        TestStep step(random_, sequences, case_.kv_heads, dim, kv, all);
        DeviceStep device_step(step, static_cast<int32_t>(sequences.size()));
        const int32_t rows = step.rows().rows;
        const int64_t width = int64_t{q_heads_ + 2 * case_.kv_heads} * dim;
        const TestMatrix w = RandomMatrix(random_, DType::kBF16, width, hidden, 1,
                                          1 / std::sqrt(static_cast<float>(hidden)));
        const TestMatrix plain_w = Dequantized(w);
        DeviceMatrix device_w(w);
        const std::vector<float> x = RandomBf16(random_, rows * hidden);
        const std::vector<float> norm = RandomVector(random_, hidden);
        const std::vector<float> bias = RandomVector(random_, width);
        const std::vector<float> q_norm = RandomVector(random_, dim);
        const std::vector<float> k_norm = RandomVector(random_, dim);
        DeviceBf16 device_x(x);
        DeviceArray<float> device_norm(norm), device_bias(bias), device_q_norm(q_norm),
            device_k_norm(k_norm);
        std::vector<float> inv_freq;
        const int32_t rotated = all > 0 ? dim : dim / 2 / 2 * 2;  // glm rotates half of a head
        for (int i = 0; i < rotated / 2; ++i) {
          inv_freq.push_back(std::pow(1e4f, -2.0f * i / rotated));
        }
        DeviceArray<float> device_inv_freq(inv_freq);
        std::vector<float> expected(rows * q_heads_ * dim);
        DeviceBf16 q(expected);
        AttentionInputArgs args;
        args.rows = step.rows();
        args.x = x.data();
        args.norm = norm.data();
        args.eps = 1e-6f;
        args.qkv = plain_w.matrix;
        args.bias = all > 0 ? bias.data() : nullptr;
        args.q_norm = all > 1 ? q_norm.data() : nullptr;
        args.k_norm = all > 1 ? k_norm.data() : nullptr;
        args.q_heads = q_heads_;
        args.kv_heads = case_.kv_heads;
        args.head_dim = dim;
        args.rope = {inv_freq.data(), rotated, all > 0 ? 1.25f : 1.0f};
        args.kv = step.kv();
        args.q = expected.data();
        ASSERT_TRUE(reference_->AttentionInput(args, {}, nullptr).ok());
        ScratchShape shape = step.shape();
        shape.hidden = static_cast<int32_t>(hidden);
        shape.q_heads = q_heads_;
        DeviceScratch scratch(*ops_, shape);
        args.rows = device_step.rows;
        args.x = device_x.data();
        args.norm = device_norm.data();
        args.qkv = device_w.matrix;
        args.bias = all > 0 ? device_bias.data() : nullptr;
        args.q_norm = all > 1 ? device_q_norm.data() : nullptr;
        args.k_norm = all > 1 ? device_k_norm.data() : nullptr;
        args.rope.inv_freq = device_inv_freq.data();
        args.kv = device_step.kv;
        args.q = q.data();
        ASSERT_STREQ(ops_->AttentionInput(args, scratch, nullptr).message, nullptr);
        // A head's norm multiplies by up to 4, the rotation mixes two.
        const double tolerance = (all > 1 ? 6 : 2) * kDotOfRounded;
        ExpectNear(expected, q.GetFloats(), tolerance, kBf16Epsilon, "q");
        std::vector<float> pool, expected_pool;
        const std::vector<uint8_t> bytes = device_step.pool.Get();
        const int64_t elements = static_cast<int64_t>(bytes.size()) / DTypeBytes(kv, 1);
        for (int64_t i = 0; i < elements; ++i) {
          pool.push_back(static_cast<float>(ReferenceFloat(bytes.data(), kv, i)));
          expected_pool.push_back(static_cast<float>(ReferenceFloat(step.pool().data(), kv, i)));
        }
        // One step of fp8 is at most an eighth: either side may take the next.
        const double relative = kv == DType::kF8E4M3 ? 0.126 : 2 * kBf16Epsilon;
        ExpectNear(expected_pool, pool, tolerance, relative, "the pool");
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuAttentionTest, ::testing::ValuesIn(kCases));
INSTANTIATE_TEST_SUITE_P(Long, GpuLongAttentionTest, ::testing::ValuesIn(kLongCases));

}  // namespace
}  // namespace switchyard::kernels
