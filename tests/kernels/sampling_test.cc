// Sample and Logprobs: every filter against the reference, distributions by chi-square with fixed
// seeds, ties, penalties, and large vocabularies.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/philox.h"
#include "tests/kernels/test_data.h"
#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {
namespace {

TEST(PhiloxTest, KnownAnswers) {
  // From the authors' known-answer file.
  const Philox4 zero = Philox({{0, 0, 0, 0}}, 0, 0);
  EXPECT_EQ(zero.v[0], 0x6627e8d5u);
  EXPECT_EQ(zero.v[3], 0x9b00dbd8u);
  const uint32_t ones = 0xffffffffu;
  const Philox4 full = Philox({{ones, ones, ones, ones}}, ones, ones);
  EXPECT_EQ(full.v[0], 0x408f276du);
  EXPECT_EQ(full.v[3], 0x6d5451fdu);
}

// One slot with a history, and rows that draw from it.
class SampleTest : public ::testing::Test {
 protected:
  static constexpr int32_t kStride = 32;
  std::unique_ptr<Ops> ops_ = MakeCpuOps(2);
  std::unique_ptr<Ops> reference_ = MakeReferenceOps();
  Random random_{7};
  std::vector<int32_t> history_ = std::vector<int32_t>(kStride);

  SamplingRow Row() {
    SamplingRow row;
    row.position = 20;
    row.prompt_length = 9;
    return row;
  }
  int32_t Draw(Ops& ops, const std::vector<float>& logits, const SamplingRow& row) {
    ScratchShape shape;
    shape.vocabulary = static_cast<int32_t>(logits.size());
    TestScratch scratch(ops, shape);
    int32_t id = -2;
    SampleArgs args = {1, shape.vocabulary, logits.data(), &row, {history_.data(), kStride}, &id};
    EXPECT_TRUE(ops.Sample(args, scratch, nullptr).ok());
    EXPECT_EQ(history_[row.position + 1], id);
    return id;
  }
  // Tokens that may be drawn are drawn as often as they should, others never.
  void ExpectDistribution(const std::vector<float>& logits, SamplingRow row, int draws) {
    const int32_t vocabulary = static_cast<int32_t>(logits.size());
    const std::vector<double> p =
        ReferenceDistribution(row, logits.data(), vocabulary, history_.data());
    std::vector<int> seen(vocabulary);
    for (int i = 0; i < draws; ++i) {
      row.seed = 1000003ull * i + 17;
      ++seen[Draw(*ops_, logits, row)];
    }
    double chi = 0, rest = draws;
    int bins = 0, rest_seen = draws;
    for (int32_t t = 0; t < vocabulary; ++t) {
      if (p[t] == 0) {
        EXPECT_EQ(seen[t], 0) << "token " << t << " was filtered away";
      }
      const double expected = p[t] * draws;
      if (expected < 8) continue;
      chi += (seen[t] - expected) * (seen[t] - expected) / expected;
      rest -= expected;
      rest_seen -= seen[t];
      ++bins;
    }
    if (rest > 8) chi += (rest_seen - rest) * (rest_seen - rest) / rest;
    // Mean `bins`, variance 2 bins: five standard deviations.
    EXPECT_LT(chi, bins + 5 * std::sqrt(2.0 * bins) + 5);
  }
};

TEST_F(SampleTest, Distributions) {
  for (int32_t& id : history_) id = static_cast<int32_t>(random_() % 40);
  const std::vector<float> logits = RandomVector(random_, 60, 2.0f);
  SamplingRow row = Row();
  ExpectDistribution(logits, row, 20000);
  row.temperature = 0.6f;
  ExpectDistribution(logits, row, 10000);
  row.top_k = 7;
  ExpectDistribution(logits, row, 10000);
  row.top_p = 0.8f;
  ExpectDistribution(logits, row, 10000);
  row = Row();
  row.top_p = 0.5f;
  row.temperature = 1.7f;
  ExpectDistribution(logits, row, 10000);
  row = Row();
  row.min_p = 0.1f;
  ExpectDistribution(logits, row, 10000);
  row = Row();
  row.repetition_penalty = 1.3f;
  row.presence_penalty = 0.4f;
  row.frequency_penalty = 0.25f;
  ExpectDistribution(logits, row, 10000);
}

// The same noise on the same scores must give the same token, whatever the filters.
TEST_F(SampleTest, AgreesWithTheReferenceTokenByToken) {
  int different = 0;
  for (int i = 0; i < 600; ++i) {
    const int32_t vocabulary = 1 + static_cast<int32_t>(random_() % (i % 10 == 0 ? 30000 : 300));
    const std::vector<float> logits = RandomVector(random_, vocabulary, 0.5f + i % 7);
    for (int32_t& id : history_) id = static_cast<int32_t>(random_() % vocabulary);
    SamplingRow row = Row();
    row.seed = random_() * 4294967296ull + random_();
    row.position = static_cast<int32_t>(random_() % 30);
    row.temperature = 0.3f + 0.1f * (i % 13);
    if (i % 2) row.top_k = 1 + static_cast<int32_t>(random_() % (i % 3 ? 20 : vocabulary));
    if (i % 3) row.top_p = 0.05f + 0.09f * (i % 11);
    if (i % 5 == 0) row.min_p = 0.02f * (i % 20);
    if (i % 4 == 0) {
      row.repetition_penalty = 1.2f;
      row.presence_penalty = 0.3f;
      row.frequency_penalty = -0.2f;
    }
    different += Draw(*ops_, logits, row) != Draw(*reference_, logits, row);
  }
  // Float and double may disagree on a token at the very border of top-p.
  EXPECT_LE(different, 1);
}

TEST_F(SampleTest, GreedyTakesTheLowestOfEquals) {
  std::vector<float> logits(1000, -1.0f);
  logits[777] = logits[333] = logits[991] = 4.0f;
  SamplingRow row = Row();
  row.temperature = 0;
  EXPECT_EQ(Draw(*ops_, logits, row), 333);
  row.repetition_penalty = 2.0f;
  std::fill(history_.begin(), history_.end(), 333);
  EXPECT_EQ(Draw(*ops_, logits, row), 777);
  logits.assign(1000, -5.0f);
  row = Row();
  row.top_k = 3;
  for (int i = 0; i < 50; ++i) {
    row.seed = i;
    EXPECT_LT(Draw(*ops_, logits, row), 3);
  }
}

TEST_F(SampleTest, ExtremesOfParameters) {
  std::vector<float> logits = RandomVector(random_, 5000, 3.0f);
  const int32_t best =
      static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  SamplingRow row = Row();
  row.temperature = 1e-38f;
  EXPECT_EQ(Draw(*ops_, logits, row), best);
  row = Row();
  row.top_p = 0;
  EXPECT_EQ(Draw(*ops_, logits, row), best);
  row = Row();
  row.top_k = 1;
  EXPECT_EQ(Draw(*ops_, logits, row), best);
  row = Row();
  row.min_p = 1;
  EXPECT_EQ(Draw(*ops_, logits, row), best);
  row = Row();
  row.temperature = 1e30f;
  row.top_p = 0.9999f;
  const int32_t id = Draw(*ops_, logits, row);
  EXPECT_TRUE(id >= 0 && id < 5000);
  logits.assign(5000, -std::numeric_limits<float>::infinity());
  logits[12] = 1;
  EXPECT_EQ(Draw(*ops_, logits, Row()), 12);
}

// Every way to draw: greedy, plain, filtered, penalized.
std::vector<SamplingRow> WaysToDraw() {
  std::vector<SamplingRow> rows(6);
  rows[0].temperature = 0;
  rows[2] = {.top_k = 5, .top_p = 0.5f, .min_p = 0.1f};
  rows[3].top_p = 0.9f;
  rows[4] = {.temperature = 0, .repetition_penalty = 1.3f};
  rows[5] = {.top_k = 3, .frequency_penalty = 0.5f};
  for (SamplingRow& row : rows) row.position = 20;
  return rows;
}

// Damage to a row of logits: NaN or +inf in one place, or nothing but -inf.
std::vector<std::vector<float>> NoAnswers(const std::vector<float>& logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const size_t last = logits.size() - 1;
  std::vector<std::vector<float>> damaged;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
    for (const size_t at : {size_t{0}, last / 2, last}) {
      damaged.push_back(logits);
      damaged.back()[at] = bad;
    }
  }
  damaged.emplace_back(logits.size(), std::numeric_limits<float>::quiet_NaN());
  damaged.emplace_back(logits.size(), -kInfinity);
  return damaged;
}

// Between two rows that are drawn as if they were alone.
TEST_F(SampleTest, LogitsThatAreNoAnswerDrawNothing) {
  for (const int32_t vocabulary : {1, 5, 61, 1000, 32003}) {
    const std::vector<float> good = RandomVector(random_, vocabulary, 2.0f);
    for (const std::vector<float>& bad : NoAnswers(good)) {
      std::vector<float> logits = good;
      logits.insert(logits.end(), bad.begin(), bad.end());
      logits.insert(logits.end(), good.begin(), good.end());
      for (const SamplingRow& way : WaysToDraw()) {
        history_.assign(3 * kStride, 0);
        std::vector<SamplingRow> rows(3, way);
        for (int32_t r = 0; r < 3; ++r) rows[r].slot = r;
        ScratchShape shape;
        shape.vocabulary = vocabulary;
        TestScratch scratch(*ops_, shape);
        std::vector<int32_t> ids(3), expected(3);
        SampleArgs args = {
            3, vocabulary, logits.data(), rows.data(), {history_.data(), kStride}, ids.data()};
        ASSERT_TRUE(ops_->Sample(args, scratch, nullptr).ok());
        EXPECT_EQ(ids[1], kNotNumbers);
        EXPECT_EQ(history_[kStride + 21], 0) << "a step that is on its way must find a token";
        EXPECT_TRUE(ids[0] >= 0 && ids[0] == ids[2]) << ids[0] << ", " << ids[2];
        args.ids = expected.data();
        ASSERT_TRUE(reference_->Sample(args, scratch, nullptr).ok());
        EXPECT_EQ(ids, expected);
      }
    }
  }
}

TEST_F(SampleTest, LogitsThatAreNoAnswerHaveNoLogprobs) {
  for (const int32_t vocabulary : {20, 61, 1000, 32003}) {
    constexpr int32_t kTop = 3;
    const std::vector<float> good = RandomVector(random_, vocabulary, 2.0f);
    for (const std::vector<float>& bad : NoAnswers(good)) {
      std::vector<float> logits = bad;
      logits.insert(logits.end(), good.begin(), good.end());
      history_.assign(kStride, 7);
      const std::vector<SamplingRow> rows(2);
      std::vector<float> logprob(2), best(2 * kTop);
      std::vector<int32_t> ids(2 * kTop);
      const LogprobArgs args = {
          2,    vocabulary,     logits.data(), rows.data(), {history_.data(), kStride},
          kTop, logprob.data(), ids.data(),    best.data()};
      for (Ops* ops : {ops_.get(), reference_.get()}) {
        ASSERT_TRUE(ops->Logprobs(args, {}, nullptr).ok());
        EXPECT_TRUE(std::isnan(logprob[0])) << logprob[0];
        EXPECT_LT(logprob[1], 0);
        for (int32_t i = 0; i < kTop; ++i) {
          EXPECT_EQ(ids[i], -1);
          EXPECT_TRUE(std::isnan(best[i])) << best[i];
          EXPECT_GE(ids[kTop + i], 0);
        }
      }
    }
  }
}

// What a request may ask for at most (worker/validate.cc) leaves numbers numbers.
TEST_F(SampleTest, NoParametersMakeLogitsLookDamaged) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  std::vector<float> logits = RandomVector(random_, 500, 3.0f);
  for (int32_t i = 0; i < 500; i += 3) logits[i] = kNever;
  for (int32_t i = 0; i < kStride; ++i) history_[i] = 5 * i;
  std::vector<SamplingRow> rows;
  for (const float temperature : {0.0f, 1e-45f, 1.0f, 100.0f}) {
    for (const float repetition : {1e-45f, 1e-38f, 1.0f, 100.0f}) {
      for (const float penalty : {-100.0f, 0.0f, 100.0f}) {
        SamplingRow row = Row();
        row.temperature = temperature;
        row.repetition_penalty = repetition;
        row.presence_penalty = row.frequency_penalty = penalty;
        rows.push_back(row);
        row.top_k = 1;
        rows.push_back(row);
        row.top_k = 0;
        row.top_p = 1e-45f;
        rows.push_back(row);
        row.top_p = 1;
        row.min_p = 1;
        rows.push_back(row);
      }
    }
  }
  for (const SamplingRow& row : rows) {
    const int32_t id = Draw(*ops_, logits, row);
    EXPECT_TRUE(id >= 0 && logits[id] > kNever) << id;
    EXPECT_EQ(id, Draw(*reference_, logits, row))
        << "temperature " << row.temperature << ", repetition " << row.repetition_penalty
        << ", presence " << row.presence_penalty;
  }
}

TEST_F(SampleTest, RowsThatDoNotDrawAreLeftAlone) {
  const std::vector<float> logits = RandomVector(random_, 3 * 100);
  std::vector<SamplingRow> rows(3, Row());
  rows[0].draw = 0;
  rows[1].slot = -1;
  std::vector<int32_t> ids(3, 5);
  ScratchShape shape;
  shape.vocabulary = 100;
  TestScratch scratch(*ops_, shape);
  SampleArgs args = {3, 100, logits.data(), rows.data(), {history_.data(), kStride}, ids.data()};
  ASSERT_TRUE(ops_->Sample(args, scratch, nullptr).ok());
  EXPECT_EQ(ids[0], -1);
  EXPECT_EQ(ids[1], -1);
  EXPECT_GE(ids[2], 0);
  EXPECT_EQ(history_[21], ids[2]);
}

TEST_F(SampleTest, Logprobs) {
  for (const int32_t vocabulary : {1, 5, 1000, 32003}) {
    const int32_t top = std::min(20, vocabulary), count = 3;
    std::vector<float> logits = RandomVector(random_, count * vocabulary, 3.0f);
    if (vocabulary > 100) logits[40] = logits[70] = 15.0f;
    for (int32_t& id : history_) id = static_cast<int32_t>(random_() % vocabulary);
    std::vector<SamplingRow> rows(count);
    for (int32_t r = 0; r < count; ++r) rows[r].position = 3 * r;
    std::vector<float> logprob(count), expected(count), best(count * top),
        expected_best(count * top);
    std::vector<int32_t> ids(count * top), expected_ids(count * top);
    LogprobArgs args = {
        count, vocabulary,     logits.data(), rows.data(), {history_.data(), kStride},
        top,   logprob.data(), ids.data(),    best.data()};
    ASSERT_TRUE(ops_->Logprobs(args, {}, nullptr).ok());
    args.logprob = expected.data();
    args.top_ids = expected_ids.data();
    args.top_logprobs = expected_best.data();
    ASSERT_TRUE(reference_->Logprobs(args, {}, nullptr).ok());
    ExpectClose(expected, logprob, 1e-5, "logprob");
    EXPECT_EQ(ids, expected_ids);
    ExpectClose(expected_best, best, 1e-5, "top logprobs");
  }
}

}  // namespace
}  // namespace switchyard::kernels
