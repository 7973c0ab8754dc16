// The whole engine on a GPU, over a checkpoint of every family: decode steps as graphs give bit for
// bit what they give op by op, also after all memory has gone and come back, after a pause, in a
// new engine, and where a graph is captured between two steps of running sequences. What the graphs
// cost stays within what the plan counts for them. With batch_invariant nothing changes a bit that
// is not the sequence's own.
//
// The checkpoints are those of tests/golden and models.d/demo, below SWITCHYARD_TEST_ROOT if that
// is set, and those that SWITCHYARD_TEST_CHECKPOINTS names, with colons in between.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/gpu/test_options.h"
#include "tests/worker/engine/engine_harness.h"
#include "worker/device/cuda_device.h"
#include "worker/engine/graph_schedule.h"
#include "worker/model/families.h"
#include "worker/plan.h"

namespace switchyard::worker {
namespace {

constexpr int kSequences = 5;

std::vector<std::string> AllCheckpoints() {
  const char* set = std::getenv("SWITCHYARD_TEST_ROOT");
  const std::string root = set != nullptr ? set : SWITCHYARD_SOURCE_DIR;
  std::vector<std::string> dirs;
  for (const char* folder : {"/tests/golden/models", "/tests/golden/quantized", "/models.d/demo"}) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(root + folder, error)) {
      if (entry.is_directory()) dirs.push_back(entry.path().string());
    }
  }
  const char* more = std::getenv("SWITCHYARD_TEST_CHECKPOINTS");
  if (more != nullptr) {
    for (const auto& dir : absl::StrSplit(more, ':', absl::SkipEmpty())) dirs.emplace_back(dir);
  }
  std::sort(dirs.begin(), dirs.end());
  return dirs;
}

std::string NameOf(const std::string& dir) {
  std::string name = std::filesystem::path(dir).filename().string();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
  return name;
}

uint64_t FreeBytes() {
  size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  return free;
}

class GpuEngineGraphTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
      GTEST_SKIP() << "no GPU to test on";
    ops_ = kernels::MakeCudaOps(kernels::TestOptions(), nullptr);
    ASSERT_NE(ops_, nullptr);
    auto checkpoint = Checkpoint::Open(GetParam());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    arch_ = *ReadArchitecture(checkpoint->config());
    image_ = *PlanImage(arch_, *checkpoint);
    DeviceTraits gpu;
    gpu.is_cpu = false;
    gpu.page_bytes = kCudaPageBytes;
    FitImage(gpu, image_);
    master_.resize(image_.bytes);
    ASSERT_TRUE(FillImage(image_, *checkpoint, master_, nullptr).ok());
    limits_.context_length = 192;
    limits_.max_sequences = 6;
    limits_.prefill_chunk = 64;
    limits_.logit_rows = 8;
    limits_.kv_dtype = kernels::DType::kBF16;
    limits_.quantized = HasQuantizedMatrix(image_);
  }

  std::unique_ptr<EngineHarness> Make(bool graphs) { return Make(graphs, limits_); }
  std::unique_ptr<EngineHarness> Make(bool graphs, EngineLimits limits) {
    limits.graphs = graphs;
    return std::make_unique<EngineHarness>(arch_, image_, master_.data(), limits, *ops_,
                                           HarnessGraphs::kOfDevice, MakeCudaDevice());
  }
  // Sampled, with the best of their log-probabilities: one bit in a logit changes what comes out.
  std::vector<SequenceRequest> Requests(RequestId first, int sequences) {
    std::mt19937 random(5);
    std::vector<SequenceRequest> requests;
    for (int i = 0; i < sequences; ++i) {
      SequenceRequest request;
      request.id = first + i;
      for (int j = 0; j < 3 + 20 * (i % kSequences); ++j) {
        request.prompt.push_back(static_cast<int32_t>(random() % arch_.vocabulary));
      }
      request.max_tokens = 70 + i;  // so that the sizes come down one by one
      request.sampling.seed = 77 + i;
      request.sampling.top_p = i % 2 == 0 ? 1 : 0.9f;
      request.logprobs = 20;
      requests.push_back(std::move(request));
    }
    return requests;
  }
  void SubmitAll(EngineHarness& h, RequestId first, int sequences = kSequences) {
    for (SequenceRequest& request : Requests(first, sequences)) {
      h.engine().Submit(std::move(request));
    }
  }
  void CheckThatNothingChangesABit();
  void ExpectNoAnswer(const std::string& what);
  // Makes the model resident, and all graphs while it is idle.
  void ExpectGraphsWithinThePlan(EngineHarness& h, const EngineLimits& limits) {
    uint64_t before = 0;
    std::chrono::steady_clock::time_point start;
    h.faults().on_capture = [&] {
      if (before != 0) return;
      before = FreeBytes();
      start = std::chrono::steady_clock::now();
    };
    h.GrantAll();
    h.Settle();
    h.faults().on_capture = [] {};
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    const size_t sizes = DecodeSizes(arch_, limits.max_sequences).size();
    ASSERT_EQ(static_cast<size_t>(h.faults().captured), sizes);
    const uint64_t after = FreeBytes(), held = before > after ? before - after : 0;
    const uint64_t planned = GraphBytes(arch_, limits.max_sequences);
    std::printf("%s: %zu layers, %zu graphs hold %.1f MiB of %.1f, made in %.1f ms\n",
                NameOf(GetParam()).c_str(), arch_.layers.size(), sizes,
                static_cast<double>(held) / (1 << 20), static_cast<double>(planned) / (1 << 20),
                took.count());
    EXPECT_LE(held, planned);
  }
  // So that pausing changes no later step's number of rows.
  static void RunUntilAllDecode(EngineHarness& h, RequestId first) {
    const auto decodes = [&](int i) { return h.of(first + i).tokens.size() > 2; };
    while (!(decodes(0) && decodes(1) && decodes(2) && decodes(3) && decodes(4))) h.Iterate(1);
  }
  static void ExpectSame(EngineHarness& h, RequestId first, EngineHarness& eager,
                         const char* what) {
    for (int i = 0; i < kSequences; ++i) {
      const Outcome &ours = h.of(first + i), &theirs = eager.of(1 + i);
      ASSERT_EQ(ours.end, SequenceEnd::kLength) << what << ": " << ours.error;
      ASSERT_EQ(theirs.end, SequenceEnd::kLength) << theirs.error;
      ASSERT_EQ(ours.results.size(), theirs.results.size());
      for (size_t t = 0; t < ours.results.size(); ++t) {
        const TokenResult &a = ours.results[t], &b = theirs.results[t];
        ASSERT_TRUE(a.id == b.id && a.logprob == b.logprob && a.top_ids == b.top_ids &&
                    a.top_logprobs == b.top_logprobs)
            << what << ": sequence " << i << ", token " << t << ": " << a.id << " with "
            << a.logprob << ", op by op " << b.id << " with " << b.logprob;
      }
    }
  }

  std::unique_ptr<kernels::Ops> ops_;
  Architecture arch_;
  ImageLayout image_;
  std::vector<std::byte> master_;
  EngineLimits limits_;
};

INSTANTIATE_TEST_SUITE_P(Checkpoints, GpuEngineGraphTest, ::testing::ValuesIn(AllCheckpoints()),
                         [](const auto& info) { return NameOf(info.param); });

TEST_P(GpuEngineGraphTest, NothingChangesABit) { CheckThatNothingChangesABit(); }

TEST_P(GpuEngineGraphTest, NothingChangesABitOverFp8Kv) {
  const KvLayout wide = Make(false)->kv();
  limits_.kv_dtype = kernels::DType::kF8E4M3;
  EXPECT_EQ(Make(false)->kv().layer_bytes, wide.layer_bytes / 2);
  CheckThatNothingChangesABit();
}

void GpuEngineGraphTest::CheckThatNothingChangesABit() {
  auto eager = Make(/*graphs=*/false);
  eager->GrantAll();
  eager->Settle();
  SubmitAll(*eager, 1);
  eager->Settle();
  EXPECT_EQ(eager->faults().graph_launches, 0);

  auto h = Make(true);
  ExpectGraphsWithinThePlan(*h, limits_);
  const int sizes = h->faults().captured;

  SubmitAll(*h, 1);
  h->Settle();
  EXPECT_GT(h->faults().graph_launches, 50);
  ExpectSame(*h, 1, *eager, "as graphs");

  h->TakeAll(/*pause=*/false);
  h->Settle();
  ASSERT_EQ(h->faults().committed(), 0u);
  h->GrantAll();
  h->Settle();
  SubmitAll(*h, 101);
  h->Settle();
  ExpectSame(*h, 101, *eager, "after sleep and wake");

  SubmitAll(*h, 201);
  RunUntilAllDecode(*h, 201);
  for (int swap = 0; swap < 3; ++swap) {
    h->Iterate(7);
    h->TakeAll(/*pause=*/true);
    h->Settle();
    ASSERT_EQ(h->faults().committed(), 0u);
    h->GrantAll();  // and goes on while weights are on their way
  }
  h->Settle();
  ExpectSame(*h, 201, *eager, "paused and resumed");
  EXPECT_EQ(h->faults().captured, sizes) << "once for all";
}

// Prompts whose keys are e4m3 are about as likely as those whose keys are bf16: these small models
// of random weights moved by a fifth of what log-probabilities differ by, at most.
TEST_P(GpuEngineGraphTest, Fp8KvIsCloseToBf16) {
  const auto scores = [&](kernels::DType kv) {
    limits_.kv_dtype = kv;
    auto h = Make(/*graphs=*/false);
    h->GrantAll();
    for (SequenceRequest& request : Requests(1, kSequences)) {
      request.prompt_logprobs = 0;
      request.max_tokens = 1;
      h->engine().Submit(std::move(request));
    }
    h->Settle();
    std::vector<float> logprobs;
    for (int i = 0; i < kSequences; ++i) {
      const std::vector<TokenResult>& prompt = h->of(1 + i).prompt;
      for (size_t t = 1; t < prompt.size(); ++t) logprobs.push_back(prompt[t].logprob);
    }
    return logprobs;
  };
  const std::vector<float> wide = scores(kernels::DType::kBF16);
  const std::vector<float> narrow = scores(kernels::DType::kF8E4M3);
  ASSERT_EQ(wide.size(), narrow.size());
  ASSERT_GT(wide.size(), 100u);
  double distance = 0, spread = 0, mean = 0;
  for (const float x : wide) mean += x / static_cast<double>(wide.size());
  for (size_t i = 0; i < wide.size(); ++i) {
    distance += std::abs(wide[i] - narrow[i]) / static_cast<double>(wide.size());
    spread += std::abs(wide[i] - mean) / static_cast<double>(wide.size());
  }
  std::printf("%s: fp8 KV moves a log-probability by %.4f of %.4f\n", NameOf(GetParam()).c_str(),
              distance, spread);
  EXPECT_LT(distance, 0.3 * spread);
  EXPECT_GT(distance, 0) << "was it fp8?";
}

// Alone, in company, in other chunks, as graphs and op by op, and with KV computed again.
TEST_P(GpuEngineGraphTest, BatchInvariant) {
  kernels::CudaOptions options = kernels::TestOptions();
  options.batch_invariant = true;
  ops_ = kernels::MakeCudaOps(options, nullptr);
  ASSERT_NE(ops_, nullptr);
  auto alone = Make(/*graphs=*/false);
  alone->GrantAll();
  for (SequenceRequest& request : Requests(1, kSequences)) {
    alone->engine().Submit(std::move(request));
    alone->Settle();
  }
  auto h = Make(true);
  h->GrantAll();
  h->Settle();
  SubmitAll(*h, 1);
  h->Settle();
  EXPECT_GT(h->faults().graph_launches, 50);
  ExpectSame(*h, 1, *alone, "in company of four");
  SubmitAll(*h, 101);
  RunUntilAllDecode(*h, 101);
  for (int swap = 0; swap < 2; ++swap) {
    h->Iterate(9);
    h->TakeAll(/*pause=*/true, /*host_kv_bytes=*/0);
    h->Settle();
    h->GrantAll();
  }
  h->Settle();
  ExpectSame(*h, 101, *alone, "with KV computed again");

  EngineLimits limits = limits_;
  limits.max_sequences = 40;
  auto many = Make(true, limits);
  many->GrantAll();
  many->Settle();
  SubmitAll(*many, 1, 37);
  many->Settle();
  ExpectSame(*many, 1, *alone, "in company of 36");
  for (const int32_t chunk : {7, 16, 192}) {
    limits.prefill_chunk = chunk;
    auto cut = Make(/*graphs=*/false, limits);
    cut->GrantAll();
    SubmitAll(*cut, 1, 6);
    cut->Settle();
    ExpectSame(*cut, 1, *alone, "in other chunks");
  }
}

void GpuEngineGraphTest::ExpectNoAnswer(const std::string& what) {
  auto h = Make(/*graphs=*/false);
  h->GrantAll();
  SubmitAll(*h, 1);
  SequenceRequest one_row;
  one_row.id = 1 + kSequences;
  one_row.prompt = {1};
  one_row.max_tokens = 2;
  h->Settle();
  h->engine().Submit(one_row);
  h->Settle();
  for (RequestId i = 1; i <= one_row.id; ++i) {
    EXPECT_EQ(h->of(i).end, SequenceEnd::kNotNumbers) << i << ": " << what;
  }
}

// Whatever is damaged, no token comes of it: one tensor of each role, in steps of a prompt, and of
// one row.
TEST_P(GpuEngineGraphTest, WeightsThatAreNotNumbersGiveNoAnswer) {
  std::set<std::pair<Role, Piece>> seen;
  for (const ImageTensor& tensor : image_.tensors) {
    if (!CanBeNan(tensor) || !seen.emplace(tensor.role, tensor.piece).second) continue;
    const Damage damage(tensor, master_);
    ExpectNoAnswer(absl::StrCat(RoleName(tensor.role), " of layer ", tensor.layer));
  }
}

// What is in the KV alone is seen, too, whatever that keeps of it: the values of one layer.
TEST_P(GpuEngineGraphTest, ValuesThatAreNotNumbersGiveNoAnswer) {
  const auto damaged =
      std::find_if(image_.tensors.begin(), image_.tensors.end(),
                   [&](const ImageTensor& tensor) { return ValueRows(arch_, tensor).count > 0; });
  if (damaged == image_.tensors.end()) return;  // nothing of a row's own there can be NaN
  const Damage damage(*damaged, ValueRows(arch_, *damaged), master_);
  for (const kernels::DType kv : {kernels::DType::kBF16, kernels::DType::kF8E4M3}) {
    limits_.kv_dtype = kv;
    ExpectNoAnswer(absl::StrCat("values, of ", kernels::DTypeBytes(kv, 1), " bytes"));
  }
}

TEST_P(GpuEngineGraphTest, ATokenBeforeThatIsNoNumberGivesNoAnswer) {
  const ImageTensor& embedding = image_.tensors.front();
  ASSERT_TRUE(embedding.role == Role::kEmbedding && CanBeNan(embedding));
  const Damage damage(embedding, {7, 1}, master_);
  for (const kernels::DType kv : {kernels::DType::kBF16, kernels::DType::kF8E4M3}) {
    limits_.kv_dtype = kv;
    auto h = Make(/*graphs=*/false);
    h->GrantAll();
    h->engine().Submit(AfterToken(7, 1));
    h->Settle();
    EXPECT_EQ(h->of(1).end, SequenceEnd::kNotNumbers)
        << "KV of " << kernels::DTypeBytes(kv, 1) << " bytes";
  }
}

TEST_P(GpuEngineGraphTest, ManySizesStayWithinThePlan) {
  EngineLimits limits = limits_;
  limits.max_sequences = 32;
  {
    // Steps of all sizes, which load kernels: the plan counts those elsewhere.
    auto eager = Make(/*graphs=*/false, limits);
    eager->GrantAll();
    SubmitAll(*eager, 1, limits.max_sequences);
    eager->Settle();
  }
  auto h = Make(true, limits);
  ExpectGraphsWithinThePlan(*h, limits);
}

TEST_P(GpuEngineGraphTest, CapturedBetweenStepsOfRunningSequences) {
  auto eager = Make(/*graphs=*/false);
  eager->GrantAll();
  SubmitAll(*eager, 1);
  eager->Settle();
  auto h = Make(true);
  h->GrantAll();
  SubmitAll(*h, 1);
  while (h->of(1).end == SequenceEnd::kNone) h->Iterate(1);
  EXPECT_EQ(h->faults().captured, 1);
  EXPECT_GT(h->faults().graph_launches, 10);
  h->Settle();
  ExpectSame(*h, 1, *eager, "captured on the way");
}

}  // namespace
}  // namespace switchyard::worker
