// The engine with graphs: when they are captured, when they are launched, and that no answer
// changes. Graphs are recorded calls of the fake model: they keep their host arguments.

#include <gtest/gtest.h>

#include "tests/worker/engine/engine_harness.h"
#include "tests/worker/engine/fake_model.h"
#include "tests/worker/engine/fake_ops.h"

namespace switchyard::worker {
namespace {

constexpr int kSizes = 4;  // 1, 2, 4 and 6

class EngineGraphTest : public testing::Test {
 protected:
  EngineGraphTest() : model_(MakeFakeModel({0, 24, 0, 24})) {
    limits_.context_length = 512;
    limits_.max_sequences = 6;
    limits_.prefill_chunk = 32;
    limits_.logit_rows = 3;
  }
  EngineHarness& Build() {
    harness_ = std::make_unique<EngineHarness>(model_.arch, model_.image, model_.master.data(),
                                               limits_, ops_, HarnessGraphs::kRecorded);
    faults().on_graph_launch = [this] {
      EXPECT_GE(faults().committed(), model_.image.bytes + harness_->kv().smallest_bytes)
          << "launched without all that it may touch";
    };
    return *harness_;
  }
  Faults& faults() { return harness_->faults(); }

  void Submit(RequestId id, int32_t prompt, int32_t max_tokens, int32_t logprobs = -1) {
    SequenceRequest request;
    request.id = id;
    for (int32_t i = 0; i < prompt; ++i) {
      request.prompt.push_back(static_cast<int32_t>((id * 31 + i * i) % 61));
    }
    request.max_tokens = max_tokens;
    request.sampling.seed = id;
    request.logprobs = logprobs;
    requests_[id] = request;
    harness_->engine().Submit(request);
  }
  void ExpectAnswers() {
    for (const auto& [id, request] : requests_) {
      const FakeAnswer answer = FakeAnswerOf(model_, request);
      const Outcome& outcome = harness_->of(id);
      EXPECT_EQ(outcome.end, SequenceEnd::kLength) << id << outcome.error;
      EXPECT_EQ(outcome.tokens, answer.tokens) << id;
      for (size_t i = 0; request.logprobs >= 0 && i < answer.logprobs.size(); ++i) {
        EXPECT_EQ(outcome.results[i].logprob, answer.logprobs[i]) << id << " token " << i;
      }
    }
    EXPECT_FALSE(ops_.corrupt);
  }

  FakeModel model_;
  FakeOps ops_;
  EngineLimits limits_;
  std::unique_ptr<EngineHarness> harness_;
  std::map<RequestId, SequenceRequest> requests_;
};

TEST_F(EngineGraphTest, CapturesOneAtATimeWhenIdleAndResident) {
  EngineHarness& h = Build();
  h.Settle();
  h.Grant(model_.image.bytes - 1, h.kv().useful_bytes);
  h.Settle();
  EXPECT_EQ(faults().captured, 0) << "not resident";
  h.GrantAll();
  while (faults().captured == 0) h.Iterate(1);
  for (int captured = 1; captured < kSizes; ++captured) {
    EXPECT_EQ(faults().captured, captured);
    h.Iterate(1);
  }
  h.Settle();
  EXPECT_EQ(faults().captured, kSizes);
  EXPECT_EQ(faults().graph_launches, 0);
  EXPECT_EQ(h.engine().Stats().steps, 0u) << "padding is no step of anybody's";
}

TEST_F(EngineGraphTest, DecodeStepsAreGraphsOfTheNextSize) {
  EngineHarness& h = Build();
  h.GrantAll();
  h.Settle();
  for (RequestId id = 1; id <= 5; ++id) Submit(id, 20 + 7 * static_cast<int32_t>(id), 30);
  h.Settle();
  ExpectAnswers();
  EXPECT_EQ(faults().captured, kSizes);
  EXPECT_GE(faults().graph_launches, 29);
  EXPECT_LT(static_cast<uint64_t>(faults().graph_launches), h.engine().Stats().steps)
      << "prefill has none";
}

TEST_F(EngineGraphTest, LogprobsFollowTheGraphWhereLogitsAreOneTile) {
  EngineHarness& h = Build();
  h.GrantAll();
  h.Settle();
  Submit(1, 20, 30, /*logprobs=*/4);
  h.Settle();
  EXPECT_EQ(faults().graph_launches, 29);
  // Four rows, all from one step on, in tiles of three.
  for (RequestId id = 2; id <= 5; ++id) Submit(id, 9, 30, 4);
  h.Settle();
  EXPECT_EQ(faults().graph_launches, 29);
  ExpectAnswers();
}

TEST_F(EngineGraphTest, ARequestThatComesFirstRunsAtOnce) {
  EngineHarness& h = Build();
  Submit(1, 40, 20);
  h.GrantAll();
  while (h.of(1).end == SequenceEnd::kNone) h.Iterate(1);
  EXPECT_EQ(faults().captured, 0);
  ExpectAnswers();
  h.Settle();
  EXPECT_EQ(faults().captured, kSizes);
}

TEST_F(EngineGraphTest, ARequestThatComesBetweenTwoCapturesRunsNext) {
  EngineHarness& h = Build();
  h.GrantAll();
  while (faults().captured == 0) h.Iterate(1);
  Submit(1, 40, 20);
  while (h.of(1).end == SequenceEnd::kNone) h.Iterate(1);
  EXPECT_EQ(faults().captured, 1);
  EXPECT_EQ(faults().graph_launches, 19) << "of the one size that is there";
  ExpectAnswers();
}

TEST_F(EngineGraphTest, AWorkerThatIsNeverIdleGetsItsGraphToo) {
  EngineHarness& h = Build();
  // All weights, and no step for want of KV.
  h.Grant(model_.image.bytes, h.kv().smallest_bytes - 1);
  h.Settle();
  ASSERT_EQ(faults().captured, 0);
  Submit(1, 40, 200);
  h.GrantAll();
  while (h.of(1).end == SequenceEnd::kNone) h.Iterate(1);
  EXPECT_EQ(faults().captured, 1);
  EXPECT_GT(faults().graph_launches, 100);
  ExpectAnswers();
}

TEST_F(EngineGraphTest, GraphsSurviveSleepAndWake) {
  EngineHarness& h = Build();
  h.GrantAll();
  h.Settle();
  for (int wake = 0; wake < 3; ++wake) {
    h.TakeAll(/*pause=*/false);
    h.Settle();
    EXPECT_EQ(faults().committed(), 0u);
    const int before = faults().graph_launches;
    h.GrantAll();
    h.Settle();
    Submit(wake + 1, 40, 20);
    h.Settle();
    EXPECT_GT(faults().graph_launches, before);
  }
  EXPECT_EQ(faults().captured, kSizes) << "once for all";
  ExpectAnswers();
}

TEST_F(EngineGraphTest, NoGraphIsLaunchedWhileWeightsAreOnTheirWay) {
  EngineHarness& h = Build();
  h.GrantAll();
  h.Settle();
  for (RequestId id = 1; id <= 4; ++id) Submit(id, 40, 60);
  for (int swap = 0; swap < 5; ++swap) {
    h.Iterate(12);
    h.TakeAll(/*pause=*/true);
    h.Settle();
    const int before = faults().graph_launches;
    h.Iterate(3);
    EXPECT_EQ(faults().graph_launches, before) << "nothing is resident";
    h.GrantAll();  // steps begin at once, and wait for the layers: on_graph_launch looks on
  }
  h.Settle();
  EXPECT_GT(faults().graph_launches, 0);
  ExpectAnswers();
}

TEST_F(EngineGraphTest, WhatCannotBeCapturedRunsOpByOp) {
  EngineHarness& h = Build();
  faults().fail_captures = true;
  h.GrantAll();
  h.Settle();
  faults().fail_captures = false;
  Submit(1, 40, 100);
  h.Settle();
  EXPECT_EQ(faults().captured, 0) << "not tried again";
  EXPECT_EQ(faults().graph_launches, 0);
  ExpectAnswers();
}

TEST_F(EngineGraphTest, WithoutGraphsStepsArePaddedAllTheSame) {
  std::vector<int32_t> rows[2];
  for (const bool graphs : {false, true}) {
    limits_.graphs = graphs;
    ops_.on_step = nullptr;
    EngineHarness& h = Build();
    h.GrantAll();
    h.Settle();
    ops_.on_step = [&](const kernels::StepRows& step) {
      rows[graphs].push_back(step.rows);
      return kernels::OpError();
    };
    for (RequestId id = 1; id <= 5; ++id) Submit(id, 20, 10 + static_cast<int32_t>(id));
    h.Settle();
    ExpectAnswers();
    EXPECT_EQ(faults().graph_launches > 0, graphs);
  }
  EXPECT_EQ(rows[0], rows[1]) << "the same kernels for the same steps";
}

}  // namespace
}  // namespace switchyard::worker
