// A captured step gives bit for bit what the same step gives launched op by op, also after
// positions, tokens and lengths have changed on the device. So do two runs of the same step.

#include "tests/gpu/device_data.h"

namespace switchyard::kernels {
namespace {

constexpr int32_t kHidden = 512, kQHeads = 8, kKvHeads = 2, kDim = 64, kInner = 1024,
                  kVocabulary = 999;

class GpuGraphTest : public GpuTest, public ::testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (ops_ == nullptr) return;
    ASSERT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  cudaStream_t stream_ = nullptr;
  Random random_{11};
};

TEST_P(GpuGraphTest, ReplaysAStep) {
  const int32_t rows = GetParam();
  std::vector<TestSequence> sequences;
  for (int32_t s = 0; s < rows; ++s) sequences.push_back({100 + 37 * s, 1});
  TestStep step(random_, sequences, kKvHeads, kDim, DType::kBF16);
  DeviceStep device(step, rows);
  device.rows.longest = 1;
  const auto matrix = [&](int64_t n, int64_t k) {
    return std::make_unique<DeviceMatrix>(
        RandomMatrix(random_, DType::kBF16, n, k, 1, 1 / std::sqrt(static_cast<float>(k))));
  };
  const auto embedding = matrix(kVocabulary, kHidden), o = matrix(kHidden, kQHeads * kDim),
             qkv = matrix((kQHeads + 2 * kKvHeads) * kDim, kHidden),
             gate_up = matrix(2 * kInner, kHidden), down = matrix(kHidden, kInner);
  DeviceArray<float> norm(RandomVector(random_, kHidden)),
      inv_freq(RandomVector(random_, kDim / 2)), logits(rows * kVocabulary);
  DeviceBf16 x(rows * kHidden), q(rows * kQHeads * kDim), attention(rows * kQHeads * kDim),
      inner(rows * kInner);
  std::vector<int32_t> row_of(rows);
  std::vector<SamplingRow> sampling(rows);
  for (int32_t r = 0; r < rows; ++r) {
    row_of[r] = r;
    sampling[r].slot = rows - 1 - r;
    sampling[r].position = sequences[r].past - 1;  // so that the step's own token is what it writes
    sampling[r].seed = 99 + r;
  }
  DeviceArray<int32_t> device_row_of(row_of), ids(rows);
  DeviceArray<SamplingRow> device_sampling(sampling);
  ScratchShape shape = step.shape();
  shape.hidden = kHidden;
  shape.q_heads = kQHeads;
  shape.intermediate = kInner;
  shape.logit_rows = rows;
  shape.vocabulary = kVocabulary;
  DeviceScratch scratch(*ops_, shape);

  const auto forward = [&] {
    const auto ok = [](OpError error) { ASSERT_STREQ(error.message, nullptr); };
    ok(ops_->Embed({device.rows, device.tokens, embedding->matrix, 1.0f, x.data()}, scratch,
                   stream_));
    for (int layer = 0; layer < 2; ++layer) {
      AttentionInputArgs in;
      in.rows = device.rows;
      in.x = x.data();
      in.norm = norm.data();
      in.eps = 1e-5f;
      in.qkv = qkv->matrix;
      in.q_heads = kQHeads;
      in.kv_heads = kKvHeads;
      in.head_dim = kDim;
      in.rope = {inv_freq.data(), kDim, 1.0f};
      in.kv = device.kv;
      in.q = q.data();
      ok(ops_->AttentionInput(in, scratch, stream_));
      AttentionArgs core;
      core.rows = device.rows;
      core.q = q.data();
      core.q_heads = kQHeads;
      core.kv_heads = kKvHeads;
      core.head_dim = kDim;
      core.scale = 0.125f;
      core.kv = device.kv;
      core.out = attention.data();
      ok(ops_->Attention(core, scratch, stream_));
      ok(ops_->Linear({rows, attention.data(), o->matrix, nullptr, true, x.data()}, scratch,
                      stream_));
      MlpInputArgs mlp = {rows, x.data(), norm.data(), 1e-5f, gate_up->matrix};
      mlp.out = inner.data();
      ok(ops_->MlpInput(mlp, scratch, stream_));
      ok(ops_->Linear({rows, inner.data(), down->matrix, nullptr, true, x.data()}, scratch,
                      stream_));
    }
    ok(ops_->Head({rows, device_row_of.data(), x.data(), norm.data(), 1e-5f, embedding->matrix, 0,
                   logits.data()},
                  scratch, stream_));
    ok(ops_->Sample(
        {rows, kVocabulary, logits.data(), device_sampling.data(), device.tokens, ids.data()},
        scratch, stream_));
  };
  const auto results = [&](const auto& run) {
    run();
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    return std::make_pair(logits.Get(), ids.Get());
  };
  const std::vector<int32_t> tokens = device.ids.Get();
  const auto eager = results(forward);
  device.ids.Put(tokens);
  EXPECT_EQ(results(forward), eager) << "the same step twice";

  cudaGraph_t graph;
  cudaGraphExec_t executable;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  forward();
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  const auto replay = [&] { ASSERT_EQ(cudaGraphLaunch(executable, stream_), cudaSuccess); };
  device.ids.Put(tokens);
  EXPECT_EQ(results(replay), eager);

  std::vector<int32_t> position = device.position.Get(), length = device.sequence_length.Get();
  for (int32_t r = 0; r < rows; ++r) {
    position[r] -= 60 + r;
    length[r] -= 60 + r;
    sampling[r].seed += 1000;
  }
  device.position.Put(position);
  device.sequence_length.Put(length);
  device_sampling.Put(sampling);
  device.ids.Put(tokens);
  const auto replayed = results(replay);
  EXPECT_NE(replayed.first, eager.first);
  device.ids.Put(tokens);
  EXPECT_EQ(replayed, results(forward));
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

INSTANTIATE_TEST_SUITE_P(Rows, GpuGraphTest, ::testing::Values(1, 3, 16, 40));

}  // namespace
}  // namespace switchyard::kernels
