// The whole engine on the CPU kernels, over the golden checkpoints of every family: agrees with the
// reference, and neither company, chunks, swaps, pauses, a small pool nor padded steps that are
// repeated as graphs change a bit.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "tests/worker/engine/engine_harness.h"
#include "worker/model/families.h"

namespace switchyard::worker {
namespace {

constexpr double kTolerance = 0.02;
constexpr double kClearMargin = 0.05;
constexpr uint64_t kHost = uint64_t{1} << 30;

std::string Root() { return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/"; }

std::vector<std::string> AllCases() {
  std::vector<std::string> cases;
  for (const std::string folder : {"models/", "quantized/"}) {
    for (const auto& entry : std::filesystem::directory_iterator(Root() + folder)) {
      if (entry.is_directory()) cases.push_back(folder + entry.path().filename().string());
    }
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

bool Same(const std::vector<TokenResult>& a, const std::vector<TokenResult>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const TokenResult& x, const TokenResult& y) {
                      return x.id == y.id && x.logprob == y.logprob && x.top_ids == y.top_ids &&
                             x.top_logprobs == y.top_logprobs;
                    });
}

class EngineGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string dir = Root() + GetParam();
    auto json = ReadJsonFile(dir + "/golden.json");
    ASSERT_TRUE(json.ok()) << json.status();
    records_ = json->at("records");
    auto checkpoint = Checkpoint::Open(dir);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    arch_ = *ReadArchitecture(checkpoint->config());
    image_ = *PlanImage(arch_, *checkpoint);
    master_.resize(image_.bytes);
    ASSERT_TRUE(FillImage(image_, *checkpoint, master_, nullptr).ok());
    ops_ = kernels::MakeCpuOps(2);
    limits_.context_length = 192;
    limits_.max_sequences = 4;
    limits_.prefill_chunk = 64;
    limits_.logit_rows = 7;
  }

  std::unique_ptr<EngineHarness> Make(HarnessGraphs graphs = HarnessGraphs::kOfDevice) {
    return std::make_unique<EngineHarness>(arch_, image_, master_.data(), limits_, *ops_, graphs);
  }
  SequenceRequest Request(size_t record, bool greedy = true) {
    SequenceRequest request;
    request.id = record + 1;
    request.prompt = records_[record].at("prompt").get<std::vector<int32_t>>();
    request.max_tokens = static_cast<int32_t>(records_[record].at("greedy").size());
    request.sampling.temperature = greedy ? 0 : 1;
    request.sampling.seed = 41 + record;
    request.logprobs = request.prompt_logprobs = 5;
    return request;
  }
  // Sampled, so that one bit in a logit has a chance to change all that follows.
  std::vector<Outcome> Alone() {
    std::vector<Outcome> outcomes;
    for (size_t r = 0; r < records_.size(); ++r) {
      auto h = Make();
      h->GrantAll();
      h->engine().Submit(Request(r, false));
      h->Settle();
      outcomes.push_back(h->of(r + 1));
    }
    return outcomes;
  }
  void ExpectSame(EngineHarness& h, const std::vector<Outcome>& alone, const char* what) {
    for (size_t r = 0; r < records_.size(); ++r) {
      EXPECT_EQ(h.of(r + 1).end, SequenceEnd::kLength) << what << h.of(r + 1).error;
      EXPECT_TRUE(Same(h.of(r + 1).results, alone[r].results)) << what << ", record " << r;
      EXPECT_TRUE(Same(h.of(r + 1).prompt, alone[r].prompt)) << what << ", record " << r;
    }
  }
  void ExpectNoAnswer(const std::string& what);
  void SubmitAll(EngineHarness& h) {
    for (size_t r = 0; r < records_.size(); ++r) h.engine().Submit(Request(r, false));
  }

  nlohmann::json records_;
  Architecture arch_;
  ImageLayout image_;
  std::vector<std::byte> master_;
  std::unique_ptr<kernels::Ops> ops_;
  EngineLimits limits_;
};

INSTANTIATE_TEST_SUITE_P(Cases, EngineGoldenTest, testing::ValuesIn(AllCases()),
                         [](const auto& info) {
                           return info.param.substr(info.param.find('/') + 1);
                         });

TEST_P(EngineGoldenTest, AgreesWithTheReference) {
  auto h = Make();
  h->GrantAll();
  for (size_t r = 0; r < records_.size(); ++r) h->engine().Submit(Request(r));
  h->Settle();
  for (size_t r = 0; r < records_.size(); ++r) {
    const Outcome& ours = h->of(r + 1);
    const nlohmann::json& theirs = records_[r];
    ASSERT_EQ(ours.end, SequenceEnd::kLength) << ours.error;
    ASSERT_EQ(ours.prompt.size(), theirs["prompt"].size());
    for (size_t i = 1; i < ours.prompt.size(); ++i) {
      EXPECT_NEAR(ours.prompt[i].logprob, theirs["prompt_logprobs"][i].get<double>(), kTolerance);
    }
    for (size_t i = 0; i < ours.results.size(); ++i) {
      const nlohmann::json& token = theirs["greedy"][i];
      EXPECT_NEAR(ours.results[i].top_logprobs[0], token["logprob"].get<double>(), kTolerance);
      if (ours.results[i].id == token["id"].get<int32_t>()) continue;
      EXPECT_LE(token["margin"].get<double>(), kClearMargin) << "record " << r << " token " << i;
      break;  // from here on it is another text
    }
  }
}

void EngineGoldenTest::ExpectNoAnswer(const std::string& what) {
  auto h = Make();
  h->GrantAll();
  SequenceRequest scored = Request(0, false);
  scored.id = 2;
  h->engine().Submit(Request(0));
  h->engine().Submit(scored);
  h->Settle();
  for (const RequestId id : {1, 2}) {
    EXPECT_EQ(h->of(id).end, SequenceEnd::kNotNumbers) << what;
  }
}

// Whatever tensor is damaged, no token comes of it.
TEST_P(EngineGoldenTest, WeightsThatAreNotNumbersGiveNoAnswer) {
  for (const ImageTensor& tensor : image_.tensors) {
    if (!CanBeNan(tensor)) continue;
    const Damage damage(tensor, master_);
    ExpectNoAnswer(absl::StrCat(RoleName(tensor.role), " of layer ", tensor.layer, ", piece ",
                                static_cast<int>(tensor.piece)));
  }
}

// What is in the KV alone is seen, too.
TEST_P(EngineGoldenTest, ValuesThatAreNotNumbersGiveNoAnswer) {
  for (const ImageTensor& tensor : image_.tensors) {
    const RowRange rows = ValueRows(arch_, tensor);
    if (rows.count == 0) continue;
    const Damage damage(tensor, rows, master_);
    ExpectNoAnswer(absl::StrCat("values of layer ", tensor.layer));
  }
}

TEST_P(EngineGoldenTest, ATokenBeforeThatIsNoNumberGivesNoAnswer) {
  const ImageTensor& embedding = image_.tensors.front();
  ASSERT_TRUE(embedding.role == Role::kEmbedding && CanBeNan(embedding));
  const Damage damage(embedding, {7, 1}, master_);
  auto h = Make();
  h->GrantAll();
  h->engine().Submit(AfterToken(7, 1));
  h->Settle();
  EXPECT_EQ(h->of(1).end, SequenceEnd::kNotNumbers);
}

TEST_P(EngineGoldenTest, NothingChangesABit) {
  const std::vector<Outcome> alone = Alone();
  {
    auto h = Make();
    h->GrantAll();
    SubmitAll(*h);
    h->Settle();
    ExpectSame(*h, alone, "in company");
  }
  {
    limits_.prefill_chunk = 16;
    limits_.launch_ahead = 0;
    auto h = Make();
    h->GrantAll();
    SubmitAll(*h);
    h->Settle();
    ExpectSame(*h, alone, "in chunks of 16");
    limits_.prefill_chunk = 64;
    limits_.launch_ahead = 1;
  }
  {
    auto h = Make();
    h->GrantSmallest(kHost);
    SubmitAll(*h);
    h->Settle();
    ExpectSame(*h, alone, "in the smallest pool");
  }
  for (const HarnessGraphs graphs : {HarnessGraphs::kOfDevice, HarnessGraphs::kRecorded}) {
    for (const uint64_t host : {kHost, uint64_t{0}}) {
      auto h = Make(graphs);
      h->GrantAll();
      h->Settle();
      SubmitAll(*h);
      for (int swap = 0; swap < 4; ++swap) {
        h->Iterate(4);
        h->TakeAll(/*pause=*/true, host);
        h->Settle();
        h->Grant(image_.bytes, h->kv().useful_bytes, false, host);
      }
      h->Settle();
      EXPECT_EQ(h->faults().graph_launches > 0, graphs == HarnessGraphs::kRecorded);
      ExpectSame(*h, alone, host > 0 ? "paused and resumed" : "computed again");
    }
  }
}

}  // namespace
}  // namespace switchyard::worker
