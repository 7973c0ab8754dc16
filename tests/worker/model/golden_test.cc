// Every golden checkpoint against what transformers said about it in float32, and against itself
// under other chunkings and batches, where on the CPU no bit may change. Quantized checkpoints are
// held against the float32 weights that they mean, and to the same tolerance: the CPU dequantizes
// without loss.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include <nlohmann/json.hpp>

#include "common/json.h"
#include "tests/worker/model/model_harness.h"

namespace switchyard::worker {
namespace {

constexpr double kTolerance = 0.02;
constexpr double kClearMargin = 0.05;
constexpr int32_t kContext = 192;
constexpr int32_t kSlots = 3;

struct Golden {
  std::string dir;     // checkpoint
  std::string record;  // golden.json
};

std::map<std::string, Golden> AllGolden() {
  const std::string root = SWITCHYARD_SOURCE_DIR;
  std::map<std::string, Golden> cases;
  for (const char* folder : {"/tests/golden/models", "/tests/golden/quantized"}) {
    for (const auto& entry : std::filesystem::directory_iterator(root + folder)) {
      if (!entry.is_directory()) continue;
      const std::string dir = entry.path().string();
      cases[entry.path().filename().string()] = {dir, dir + "/golden.json"};
    }
  }
  const std::string demo = root + "/tests/golden/demo";
  for (const auto& entry : std::filesystem::directory_iterator(demo)) {
    const std::string name = entry.path().stem().string();
    if (entry.path().extension() != ".json") continue;
    cases["demo_" + name] = {root + "/models.d/demo/" + name, entry.path().string()};
  }
  return cases;
}

class GoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const Golden golden = AllGolden().at(GetParam());
    auto json = ReadJsonFile(golden.record);
    ASSERT_TRUE(json.ok()) << json.status();
    records_ = json->at("records");
    dir_ = golden.dir;
    LoadWithThreads(1);
  }

  void LoadWithThreads(int threads) {
    auto model = ModelHarness::Load(dir_, kSlots, kContext, threads);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  std::vector<RowResult> Run(const std::vector<Chunk>& chunks) {
    auto rows = model_->Run(chunks);
    EXPECT_TRUE(rows.ok()) << rows.status();
    return rows.ok() ? *rows : std::vector<RowResult>();
  }

  // The whole prompt in pieces of `size`.
  std::vector<RowResult> Prefill(int32_t slot, const std::vector<int32_t>& prompt, int32_t size) {
    model_->SetPrompt(slot, prompt);
    std::vector<RowResult> all;
    const int32_t length = static_cast<int32_t>(prompt.size());
    for (int32_t at = 0; at < length; at += size) {
      const auto rows = Run({{slot, at, std::min(size, length - at)}});
      all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
  }

  std::vector<int32_t> Prompt(size_t record) const {
    return records_[record].at("prompt").get<std::vector<int32_t>>();
  }

  void Near(double ours, double theirs, const std::string& what) {
    worst_ = std::max(worst_, std::abs(ours - theirs));
    EXPECT_NEAR(ours, theirs, kTolerance) << what;
  }

  std::string dir_;
  nlohmann::json records_;
  std::unique_ptr<ModelHarness> model_;
  double worst_ = 0;
};

TEST_P(GoldenTest, AgreesWithTheReference) {
  for (size_t r = 0; r < records_.size(); ++r) {
    const nlohmann::json& record = records_[r];
    const std::vector<int32_t> prompt = Prompt(r);
    std::vector<RowResult> rows = Prefill(0, prompt, kContext);
    ASSERT_EQ(rows.size(), prompt.size());
    for (size_t i = 1; i < prompt.size(); ++i) {
      Near(rows[i - 1].logprob, record["prompt_logprobs"][i].get<double>(),
           "prompt token " + std::to_string(i));
    }
    RowResult last = rows.back();
    int32_t position = static_cast<int32_t>(prompt.size());
    for (const nlohmann::json& token : record["greedy"]) {
      const int32_t id = token["id"].get<int32_t>();
      const std::string what = "output token at " + std::to_string(position);
      if (token["margin"].get<double>() > kClearMargin) {
        EXPECT_EQ(last.drawn, id) << what;
      }
      Near(last.top_logprobs[0], token["logprob"].get<double>(), what);
      for (int32_t i = 0; i < ModelHarness::kTop; ++i) {
        Near(last.top_logprobs[i], token["top_logprobs"][i].get<double>(), what + ", top");
      }
      model_->SetToken(0, position, id);  // on the reference's path, whatever we drew
      rows = Run({{0, position, 1}});
      ASSERT_EQ(rows.size(), 1u);
      last = rows[0];
      ++position;
    }
  }
  std::printf("%-28s worst deviation %.5f\n", GetParam().c_str(), worst_);
}

TEST_P(GoldenTest, ChunksChangeNoBit) {
  const std::vector<int32_t> prompt = Prompt(records_.size() - 1);
  const std::vector<RowResult> whole = Prefill(0, prompt, kContext);
  for (const int32_t size : {1, 7, 16, 33}) {
    EXPECT_EQ(Prefill(0, prompt, size), whole) << "chunks of " << size;
  }
}

TEST_P(GoldenTest, NeitherCompanyNorThreadsChangeABit) {
  std::vector<std::vector<RowResult>> alone;
  std::vector<Chunk> first, second;
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    const std::vector<int32_t> prompt = Prompt(slot % records_.size());
    alone.push_back(Prefill(slot, prompt, kContext));
    const int32_t cut = static_cast<int32_t>(prompt.size()) / 2;
    first.push_back({slot, 0, cut});
    second.push_back({slot, cut, static_cast<int32_t>(prompt.size()) - cut});
  }
  LoadWithThreads(3);
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    model_->SetPrompt(slot, Prompt(slot % records_.size()));
  }
  std::vector<std::vector<RowResult>> together(kSlots);
  for (const std::vector<Chunk>& chunks : {first, second}) {
    const std::vector<RowResult> rows = Run(chunks);
    size_t at = 0;
    for (const Chunk& chunk : chunks) {
      for (int32_t i = 0; i < chunk.count; ++i) together[chunk.slot].push_back(rows[at++]);
    }
  }
  for (int32_t slot = 0; slot < kSlots; ++slot) EXPECT_EQ(together[slot], alone[slot]) << slot;
}

// The place where a forward pass waits for weights that are still on their way.
TEST(Transformer, AsksBeforeEachLayerAndTheHead) {
  auto model = ModelHarness::Load(AllGolden().at("llama_defaults").dir, 1, kContext);
  ASSERT_TRUE(model.ok()) << model.status();
  (*model)->SetPrompt(0, {1, 2, 3});
  std::vector<int32_t> asked;
  const auto rows = (*model)->Run({{0, 0, 3}}, [&](int32_t layer) {
    asked.push_back(layer);
    return absl::OkStatus();
  });
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(asked, (std::vector<int32_t>{0, 1, 2}));
  const auto failed = (*model)->Run({{0, 0, 3}}, [](int32_t layer) {
    return layer == 1 ? absl::UnavailableError("the copy failed") : absl::OkStatus();
  });
  EXPECT_EQ(failed.status(), absl::UnavailableError("the copy failed"));
}

std::vector<std::string> CaseNames() {
  std::vector<std::string> names;
  for (const auto& [name, golden] : AllGolden()) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(CaseNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::worker
