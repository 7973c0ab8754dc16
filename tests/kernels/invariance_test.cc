// The promise of ops.h on the CPU: no row of any result depends, in any bit, on what other rows are
// in the batch, on how a prompt was cut into chunks, or on the number of threads. And: nothing is
// allocated by an op.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tests/kernels/test_data.h"

namespace {
std::atomic<int64_t> allocations{0};
}

// A sanitizer brings its own.
#ifndef SWITCHYARD_SANITIZED
// Counted for every operator new of this test binary. Not inlined, or GCC pairs new with free.
__attribute__((noinline)) void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

namespace switchyard::kernels {
namespace {

// A small transformer layer through every op, for any cut of the rows and any number of threads.
class Layer {
 public:
  static constexpr int32_t kHidden = 72, kHeads = 6, kKvHeads = 2, kDim = 40, kInner = 75;
  static constexpr int32_t kExperts = 9, kChosen = 3, kVocabulary = 131;
  static constexpr int32_t kWidth = (kHeads + 2 * kKvHeads) * kDim;

  explicit Layer(Random& random)
      : table_(RandomMatrix(random, DType::kBF16, kVocabulary, kHidden)),
        qkv_(RandomMatrix(random, DType::kBF16, kWidth, kHidden, 1, 0.2f)),
        o_(RandomMatrix(random, DType::kBF16, kHidden, kHeads * kDim, 1, 0.1f)),
        gate_up_(RandomMatrix(random, DType::kF16, 2 * kInner, kHidden, 1, 0.2f)),
        down_(RandomMatrix(random, DType::kF32, kHidden, kInner, 1, 0.2f)),
        router_(RandomMatrix(random, DType::kF32, kExperts, kHidden)),
        experts_up_(RandomMatrix(random, DType::kBF16, 2 * kInner, kHidden, kExperts, 0.2f)),
        experts_down_(RandomMatrix(random, DType::kBF16, kHidden, kInner, kExperts, 0.2f)),
        norm_(RandomVector(random, kHidden)),
        head_norm_(RandomVector(random, kDim)),
        sinks_(RandomVector(random, kHeads)) {
    for (int i = 0; i < kDim / 2; ++i) inv_freq_.push_back(std::pow(1e4f, -2.0f * i / kDim));
  }

  // Logits of every row of the step.
  std::vector<float> Run(Ops& ops, TestStep& step, int32_t window, int64_t* allocated = nullptr) {
    const StepRows rows = step.rows();
    const int32_t t = rows.rows;
    std::vector<float> x(t * kHidden), q(t * kHeads * kDim), attended(t * kHeads * kDim);
    std::vector<float> inner(t * kInner), normed(t * kHidden), weights(t * kChosen);
    std::vector<float> logits(t * kVocabulary);
    std::vector<int32_t> ids(t * kChosen), every(t);
    for (int32_t r = 0; r < t; ++r) every[r] = r;
    ScratchShape shape = step.shape();
    shape.logit_rows = t;
    shape.hidden = kHidden;
    shape.q_heads = kHeads;
    shape.intermediate = shape.expert_intermediate = kInner;
    shape.experts = kExperts;
    shape.chosen = kChosen;
    TestScratch scratch(ops, shape);
    const int64_t before = allocations;
    const auto check = [](OpError error) { ASSERT_TRUE(error.ok()) << error.message; };
    check(ops.Embed({rows, step.tokens(), table_.matrix, 1.5f, x.data()}, scratch, nullptr));
    AttentionInputArgs in;
    in.rows = rows;
    in.x = x.data();
    in.norm = norm_.data();
    in.eps = 1e-6f;
    in.qkv = qkv_.matrix;
    in.q_norm = in.k_norm = head_norm_.data();
    in.q_heads = kHeads;
    in.kv_heads = kKvHeads;
    in.head_dim = kDim;
    in.rope = {inv_freq_.data(), kDim, 1.0f};
    in.kv = step.kv();
    in.q = q.data();
    check(ops.AttentionInput(in, scratch, nullptr));
    AttentionArgs attention;
    attention.rows = rows;
    attention.q = q.data();
    attention.q_heads = kHeads;
    attention.kv_heads = kKvHeads;
    attention.head_dim = kDim;
    attention.scale = 0.15f;
    attention.window = window;
    attention.sinks = sinks_.data();
    attention.kv = step.kv();
    attention.out = attended.data();
    check(ops.Attention(attention, scratch, nullptr));
    check(ops.Linear({t, attended.data(), o_.matrix, nullptr, true, x.data()}, scratch, nullptr));
    MlpInputArgs mlp = {t, x.data(), norm_.data(), 1e-6f, gate_up_.matrix};
    mlp.out = inner.data();
    check(ops.MlpInput(mlp, scratch, nullptr));
    check(ops.Linear({t, inner.data(), down_.matrix, nullptr, true, x.data()}, scratch, nullptr));
    MoeRouteArgs route = {t, x.data(), norm_.data(), 1e-6f, router_.matrix};
    route.chosen = kChosen;
    route.normed = normed.data();
    route.ids = ids.data();
    route.weights = weights.data();
    check(ops.MoeRoute(route, scratch, nullptr));
    MoeExpertsArgs experts;
    experts.rows = t;
    experts.x = normed.data();
    experts.ids = ids.data();
    experts.weights = weights.data();
    experts.chosen = kChosen;
    experts.gate_up = experts_up_.matrix;
    experts.down = experts_down_.matrix;
    experts.accumulate = true;
    experts.out = x.data();
    check(ops.MoeExperts(experts, scratch, nullptr));
    check(ops.PostNormAdd({t, kHidden, normed.data(), norm_.data(), 1e-6f, x.data()}, scratch,
                          nullptr));
    check(ops.Head(
        {t, every.data(), x.data(), norm_.data(), 1e-6f, table_.matrix, 30.0f, logits.data()},
        scratch, nullptr));
    if (allocated != nullptr) *allocated = allocations - before;
    return logits;
  }

 private:
  TestMatrix table_, qkv_, o_, gate_up_, down_, router_, experts_up_, experts_down_;
  std::vector<float> norm_, head_norm_, sinks_, inv_freq_;
};

void ExpectSameBits(const float* a, const float* b, int64_t rows, const char* what) {
  for (int64_t r = 0; r < rows; ++r) {
    ASSERT_EQ(0, std::memcmp(a + r * Layer::kVocabulary, b + r * Layer::kVocabulary,
                             Layer::kVocabulary * sizeof(float)))
        << what << ": row " << r;
  }
}

class InvarianceTest : public ::testing::TestWithParam<int> {};  // the window

TEST_P(InvarianceTest, ThreadsDoNotMatter) {
  Random random(11);
  Layer layer(random);
  TestStep step(random, {{0, 300}, {2100, 1}, {40, 7}}, Layer::kKvHeads, Layer::kDim);
  const std::unique_ptr<Ops> one = MakeCpuOps(1);
  TestStep first = step;
  const std::vector<float> expected = layer.Run(*one, first, GetParam());
  for (const int threads : {2, 3, 7}) {
    const std::unique_ptr<Ops> ops = MakeCpuOps(threads);
    TestStep again = step;
    const std::vector<float> actual = layer.Run(*ops, again, GetParam());
    ExpectSameBits(expected.data(), actual.data(), step.rows().rows, "threads");
    EXPECT_EQ(first.pool(), again.pool());
  }
}

TEST_P(InvarianceTest, LongDecodeDoesNotDependOnTheSplitOverThreads) {
  Random random(13);
  Layer layer(random);
  TestStep step(random, {{6500, 1}}, Layer::kKvHeads, Layer::kDim);
  const std::unique_ptr<Ops> one = MakeCpuOps(1), many = MakeCpuOps(5);
  TestStep first = step, again = step;
  const std::vector<float> expected = layer.Run(*one, first, GetParam());
  ExpectSameBits(expected.data(), layer.Run(*many, again, GetParam()).data(), 1, "split");
}

// One prompt in one step, against the same prompt cut into chunks of several sizes, each in a batch
// with another sequence that comes first and has a size of its own.
TEST_P(InvarianceTest, ChunksAndCompanyDoNotMatter) {
  constexpr int32_t kPrompt = 300;
  Random random(12);
  Layer layer(random);
  const std::unique_ptr<Ops> ops = MakeCpuOps(2);
  TestStep whole(random, {{0, kPrompt}}, Layer::kKvHeads, Layer::kDim);
  TestStep start = whole;
  const std::vector<float> expected = layer.Run(*ops, whole, GetParam());
  for (const int32_t chunk : {1, 7, 30, 256}) {
    TestStep step = start;
    std::vector<float> actual;
    for (int32_t from = 0; from < kPrompt; from += chunk) {
      step.SetRows(0, from, std::min(chunk, kPrompt - from));
      const std::vector<float> part = layer.Run(*ops, step, GetParam());
      actual.insert(actual.end(), part.begin(), part.end());
    }
    ExpectSameBits(expected.data(), actual.data(), kPrompt, "chunk");
  }
  for (const int32_t company : {1, 6, 25, 299}) {
    Random others(99);
    TestStep step(others, {{0, company}, {0, kPrompt}}, Layer::kKvHeads, Layer::kDim);
    std::copy_n(start.tokens().ids, kPrompt, step.tokens().ids);  // its slot is 0
    const std::vector<float> actual = layer.Run(*ops, step, GetParam());
    ExpectSameBits(expected.data(), actual.data() + company * Layer::kVocabulary, kPrompt,
                   "company");
  }
}

INSTANTIATE_TEST_SUITE_P(Windows, InvarianceTest, ::testing::Values(0, 100));

TEST(AllocationTest, OpsDoNotAllocate) {
#ifdef SWITCHYARD_SANITIZED
  GTEST_SKIP() << "the sanitizer counts allocations, we do not";
#endif
  Random random(14);
  Layer layer(random);
  const std::unique_ptr<Ops> ops = MakeCpuOps(2);
  TestStep step(random, {{0, 40}, {2100, 1}}, Layer::kKvHeads, Layer::kDim);
  int64_t allocated = -1;
  layer.Run(*ops, step, 0, &allocated);
  EXPECT_EQ(allocated, 0);
}

}  // namespace
}  // namespace switchyard::kernels
