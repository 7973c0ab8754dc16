// Sample on the GPU draws what the CPU draws, token for token; Logprobs against the reference.

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "tests/gpu/device_data.h"

namespace switchyard::kernels {
namespace {

class GpuSampleTest : public GpuTest {
 protected:
  static constexpr int32_t kStride = 64;
  std::unique_ptr<Ops> cpu_ = MakeCpuOps(2);
  Random random_{7};

  // Draws the same rows on both; how many differ. `damage`: what is done to the logits first.
  int Differences(int32_t vocabulary, std::vector<SamplingRow> rows, float spread,
                  const std::function<void(std::vector<float>&)>& damage = {}) {
    const int32_t count = static_cast<int32_t>(rows.size());
    std::vector<int32_t> history(count * kStride);
    for (int32_t& id : history) id = static_cast<int32_t>(random_() % vocabulary);
    std::vector<float> logits = RandomVector(random_, int64_t{count} * vocabulary, spread);
    for (int32_t r = 0; r < count; ++r) {
      rows[r].slot = count - 1 - r;
      logits[int64_t{r} * vocabulary + random_() % vocabulary] += 6;
    }
    if (damage) damage(logits);
    ScratchShape shape;
    shape.logit_rows = count;
    shape.vocabulary = vocabulary;
    DeviceScratch scratch(*ops_, shape);
    TestScratch cpu_scratch(*cpu_, shape);
    DeviceArray<float> device_logits(logits);
    DeviceArray<int32_t> device_history(history), device_ids(count);
    DeviceArray<SamplingRow> device_rows(rows);
    std::vector<int32_t> ids(count);
    SampleArgs args = {count,     vocabulary, logits.data(), rows.data(), {history.data(), kStride},
                       ids.data()};
    EXPECT_TRUE(cpu_->Sample(args, cpu_scratch, nullptr).ok());
    args = {count,
            vocabulary,
            device_logits.data(),
            device_rows.data(),
            {device_history.data(), kStride},
            device_ids.data()};
    EXPECT_STREQ(ops_->Sample(args, scratch, nullptr).message, nullptr);
    const std::vector<int32_t> actual = device_ids.Get();
    const std::vector<float> after = device_logits.Get();
    EXPECT_EQ(std::memcmp(after.data(), logits.data(), logits.size() * sizeof(float)), 0);
    int different = 0;
    for (int32_t r = 0; r < count; ++r) different += actual[r] != ids[r];
    if (different == 0) {
      EXPECT_EQ(device_history.Get(), history);
    }
    return different;
  }

  std::vector<SamplingRow> Rows(int32_t count, const SamplingRow& like) {
    std::vector<SamplingRow> rows(count, like);
    for (int32_t r = 0; r < count; ++r) {
      rows[r].seed = 0x123456789ull * (r + 1);
      rows[r].position = 20 + r % 30;
      rows[r].prompt_length = 9;
    }
    return rows;
  }
};

// Every way to draw.
std::vector<SamplingRow> Kinds() {
  std::vector<SamplingRow> kinds(10);
  kinds[0].temperature = 0;
  kinds[1].temperature = 1;
  kinds[2].top_k = 40;
  kinds[3].top_p = 0.9f;
  kinds[4].min_p = 0.05f;
  kinds[5] = {.temperature = 0.7f, .top_k = 200, .top_p = 0.95f, .min_p = 0.01f};
  kinds[6].temperature = 0;
  kinds[7].temperature = 1.5f;
  kinds[8] = {.temperature = 0.9f, .top_k = 30, .top_p = 0.8f};
  kinds[9] = {.temperature = 0, .top_k = 5, .top_p = 0.5f};
  for (const int kind : {6, 7, 8}) {
    kinds[kind].repetition_penalty = 1.3f;
    kinds[kind].presence_penalty = 0.5f;
    kinds[kind].frequency_penalty = 0.2f;
  }
  return kinds;
}

TEST_F(GpuSampleTest, DrawsWhatTheCpuDraws) {
  const std::vector<SamplingRow> kinds = Kinds();
  for (size_t kind = 0; kind < kinds.size(); ++kind) {
    for (const int32_t vocabulary : {3, 1000, 32003, 128256}) {
      // Sums of probabilities differ in their last bits: a token at the edge of top-p may go.
      EXPECT_LE(Differences(vocabulary,
                            Rows(vocabulary > 50000  ? 4
                                 : vocabulary > 5000 ? 24
                                                     : 100,
                                 kinds[kind]),
                            2.0f),
                kinds[kind].top_p < 1 ? 1 : 0)
          << "kind " << kind << ", vocabulary " << vocabulary;
    }
  }
}

TEST_F(GpuSampleTest, RowsWithoutADrawAndTies) {
  SamplingRow row;
  row.draw = 0;
  EXPECT_EQ(Differences(100, Rows(3, row), 1.0f), 0);
  row.draw = 1;
  row.temperature = 0;
  EXPECT_EQ(Differences(2000, Rows(9, row), 0.0f), 0);
  row.temperature = 1;
  row.top_k = 7;
  EXPECT_EQ(Differences(2000, Rows(9, row), 0.0f), 0);
  row.top_k = 6000;  // of more equals than are sorted
  EXPECT_EQ(Differences(9000, Rows(9, row), 0.0f), 0);
  row.top_k = 600;  // then a share of them
  row.top_p = 0.5f;
  EXPECT_EQ(Differences(2000, Rows(9, row), 0.0f), 0);
}

// Damage to the middle one of three rows: NaN or +inf in one place, or nothing but NaN or -inf.
std::vector<std::function<void(std::vector<float>&)>> DamageTo(int32_t vocabulary) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = NAN;
  std::vector<std::function<void(std::vector<float>&)>> all;
  for (const float bad : {kNan, kInfinity}) {
    for (const int32_t at : {0, vocabulary / 2, vocabulary - 1}) {
      all.emplace_back([=](std::vector<float>& logits) { logits[vocabulary + at] = bad; });
    }
  }
  for (const float bad : {kNan, -kInfinity}) {
    all.emplace_back([=](std::vector<float>& logits) {
      std::fill_n(logits.begin() + vocabulary, vocabulary, bad);
    });
  }
  return all;
}

TEST_F(GpuSampleTest, LogitsThatAreNoAnswerDrawNothing) {
  for (const int32_t vocabulary : {3, 1000, 128256}) {
    for (const auto& damage : DamageTo(vocabulary)) {
      for (const SamplingRow& kind : Kinds()) {
        EXPECT_EQ(Differences(vocabulary, Rows(3, kind), 2.0f, damage), 0) << vocabulary;
      }
    }
  }
}

// -inf in some places is an answer, and so is what penalties take to the edge of a float.
TEST_F(GpuSampleTest, NoParametersMakeLogitsLookDamaged) {
  const auto never = [](std::vector<float>& logits) {
    for (size_t i = 0; i < logits.size(); i += 3) logits[i] = -INFINITY;
  };
  for (const float temperature : {0.0f, 1e-45f, 1.0f, 100.0f}) {
    for (const float repetition : {1e-45f, 1e-38f, 100.0f}) {
      for (const float penalty : {-100.0f, 0.0f, 100.0f}) {
        SamplingRow row;
        row.temperature = temperature;
        row.repetition_penalty = repetition;
        row.presence_penalty = row.frequency_penalty = penalty;
        EXPECT_EQ(Differences(1000, Rows(5, row), 2.0f, never), 0)
            << temperature << ", " << repetition << ", " << penalty;
      }
    }
  }
}

TEST_F(GpuSampleTest, LogitsThatAreNoAnswerHaveNoLogprobs) {
  constexpr int32_t kCount = 3, kTop = 3;
  for (const int32_t vocabulary : {30, 50021}) {
    for (const auto& damage : DamageTo(vocabulary)) {
      std::vector<float> logits = RandomVector(random_, int64_t{kCount} * vocabulary, 3);
      damage(logits);
      DeviceArray<float> device_logits(logits), logprob(kCount), top_logprobs(kCount * kTop);
      DeviceArray<int32_t> history(std::vector<int32_t>(kCount * kStride, 7));
      DeviceArray<int32_t> top_ids(kCount * kTop);
      DeviceArray<SamplingRow> rows(Rows(kCount, {}));
      ScratchShape shape;
      shape.logit_rows = kCount;
      shape.vocabulary = vocabulary;
      DeviceScratch scratch(*ops_, shape);
      const LogprobArgs args = {kCount,
                                vocabulary,
                                device_logits.data(),
                                rows.data(),
                                {history.data(), kStride},
                                kTop,
                                logprob.data(),
                                top_ids.data(),
                                top_logprobs.data()};
      ASSERT_STREQ(ops_->Logprobs(args, scratch, nullptr).message, nullptr);
      const std::vector<float> of_tokens = logprob.Get(), of_best = top_logprobs.Get();
      const std::vector<int32_t> ids = top_ids.Get();
      for (int32_t r = 0; r < kCount; ++r) {
        EXPECT_EQ(std::isnan(of_tokens[r]), r == 1);
        for (int32_t i = r * kTop; i < (r + 1) * kTop; ++i) {
          EXPECT_EQ(std::isnan(of_best[i]), r == 1);
          EXPECT_EQ(ids[i] == -1, r == 1) << ids[i];
        }
      }
    }
  }
}

TEST_F(GpuSampleTest, LogprobsAndTheBestFew) {
  for (const int32_t vocabulary : {30, 1000, 50021}) {
    constexpr int32_t kCount = 5, kTop = 20;
    const std::vector<SamplingRow> rows = [&] {
      std::vector<SamplingRow> all = Rows(kCount, {});
      for (int32_t r = 0; r < kCount; ++r) all[r].slot = r;
      return all;
    }();
    std::vector<int32_t> history(kCount * kStride);
    for (int32_t& id : history) id = static_cast<int32_t>(random_() % vocabulary);
    const std::vector<float> logits = RandomVector(random_, int64_t{kCount} * vocabulary, 3);
    DeviceArray<float> device_logits(logits), logprob(kCount), top_logprobs(kCount * kTop);
    DeviceArray<int32_t> device_history(history), top_ids(kCount * kTop);
    DeviceArray<SamplingRow> device_rows(rows);
    std::vector<float> expected(kCount), expected_top(kCount * kTop);
    std::vector<int32_t> expected_ids(kCount * kTop);
    LogprobArgs args = {
        kCount, vocabulary,      logits.data(),       rows.data(),        {history.data(), kStride},
        kTop,   expected.data(), expected_ids.data(), expected_top.data()};
    ASSERT_TRUE(reference_->Logprobs(args, {}, nullptr).ok());
    ScratchShape shape;
    shape.logit_rows = kCount;
    shape.vocabulary = vocabulary;
    DeviceScratch scratch(*ops_, shape);
    args = {kCount,
            vocabulary,
            device_logits.data(),
            device_rows.data(),
            {device_history.data(), kStride},
            kTop,
            logprob.data(),
            top_ids.data(),
            top_logprobs.data()};
    ASSERT_STREQ(ops_->Logprobs(args, scratch, nullptr).message, nullptr);
    ExpectNear(expected, logprob.Get(), 2e-5, 0, "log-probability");
    ExpectNear(expected_top, top_logprobs.Get(), 2e-5, 0, "the best");
    EXPECT_EQ(expected_ids, top_ids.Get());
  }
}

}  // namespace
}  // namespace switchyard::kernels
