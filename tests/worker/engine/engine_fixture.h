#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>

#include "tests/worker/engine/engine_harness.h"
#include "tests/worker/engine/fake_model.h"
#include "tests/worker/engine/fake_ops.h"

namespace switchyard::worker {

// The engine over the fake model: every token is exact, so what changes a bit anywhere is seen.
class EngineTest : public testing::TestWithParam<Launching> {
 protected:
  EngineTest() : model_(MakeFakeModel({0, 24, 0, 24})) {
    limits_.context_length = 512;
    limits_.max_sequences = 4;
    limits_.prefill_chunk = 32;
    limits_.logit_rows = 5;
    limits_.launch_ahead = GetParam() == Launching::kEach ? 0 : 1;
  }

  void Build() {
    harness_ = std::make_unique<EngineHarness>(model_.arch, model_.image, model_.master.data(),
                                               limits_, ops_, GraphsOf(GetParam()));
  }
  Engine& engine() { return harness_->engine(); }
  EngineHarness& h() { return *harness_; }

  SequenceRequest Request(RequestId id, int32_t prompt, int32_t max_tokens, float temperature = 1) {
    SequenceRequest request;
    request.id = id;
    std::mt19937 random(static_cast<uint32_t>(id) * 977 + 3);
    for (int32_t i = 0; i < prompt; ++i) {
      request.prompt.push_back(static_cast<int32_t>(random() % model_.arch.vocabulary));
    }
    request.max_tokens = max_tokens;
    request.sampling.temperature = temperature;
    request.sampling.seed = id;
    request.logprobs = 0;
    return request;
  }

  void Submit(const SequenceRequest& request) {
    requests_[request.id] = request;
    engine().Submit(request);
  }

  // The whole answer, exactly, and nothing after its end.
  void ExpectAnswer(RequestId id, SequenceEnd end = SequenceEnd::kLength) {
    const FakeAnswer answer = FakeAnswerOf(model_, requests_[id]);
    Outcome& outcome = h().of(id);
    EXPECT_EQ(outcome.end, end) << id << " " << outcome.error;
    EXPECT_EQ(outcome.tokens, answer.tokens) << id;
    ASSERT_EQ(outcome.results.size(), answer.logprobs.size());
    for (size_t i = 0; i < answer.logprobs.size(); ++i) {
      EXPECT_EQ(outcome.results[i].logprob, answer.logprobs[i]) << id << " token " << i;
    }
    EXPECT_EQ(outcome.events_after_end, 0);
    EXPECT_FALSE(ops_.corrupt);
  }
  // What came out so far is the beginning of the answer.
  void ExpectBeginning(RequestId id) {
    const FakeAnswer answer = FakeAnswerOf(model_, requests_[id]);
    const std::vector<int32_t>& tokens = h().of(id).tokens;
    ASSERT_LE(tokens.size(), answer.tokens.size());
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), answer.tokens.begin())) << id;
  }
  void ExpectNothingHeld() {
    EXPECT_EQ(engine().Stats().kv_blocks_used, 0u);
    h().TakeAll(true);
    h().Settle();
    EXPECT_EQ(h().faults().committed(), 0u);
    EXPECT_EQ(h().reports().back().host_kv_bytes, 0u);
  }

  FakeModel model_;
  FakeOps ops_;
  EngineLimits limits_;
  std::unique_ptr<EngineHarness> harness_;
  std::map<RequestId, SequenceRequest> requests_;
};

}  // namespace switchyard::worker
