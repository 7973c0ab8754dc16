// Sequences from their request to their end: answers, bounds of steps, stops, faults.

#include "tests/worker/engine/engine_fixture.h"

namespace switchyard::worker {
namespace {

INSTANTIATE_TEST_SUITE_P(Launching, EngineTest,
                         testing::Values(Launching::kEach, Launching::kAhead, Launching::kGraphs));

TEST_P(EngineTest, OneSequence) {
  Build();
  h().GrantAll();
  Submit(Request(1, 100, 40));
  h().Settle();
  ExpectAnswer(1);
  EXPECT_EQ(engine().Stats().tokens, 40u);
  ExpectNothingHeld();
}

TEST_P(EngineTest, ShortestPromptAndWholeContext) {
  Build();
  h().GrantSmallest();
  Submit(Request(1, 1, 1));
  Submit(Request(2, 1, 511));
  Submit(Request(3, 511, 1));
  h().Settle();
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
  ExpectNothingHeld();
}

TEST_P(EngineTest, BatchedIsAlone) {
  Build();
  h().GrantAll();
  for (RequestId id = 1; id <= 12; ++id) {
    Submit(Request(id, 1 + static_cast<int32_t>(id * 37 % 200), 5 + id * 7 % 60, id % 3));
  }
  h().Settle();
  for (RequestId id = 1; id <= 12; ++id) ExpectAnswer(id);
  ExpectNothingHeld();
}

TEST_P(EngineTest, ChunkedIsWhole) {
  for (const int32_t chunk : {1, 7, 16, 33, 512}) {
    limits_.prefill_chunk = chunk;
    Build();
    h().GrantAll();
    Submit(Request(1, 250, 20));
    Submit(Request(2, 31, 20));
    h().Settle();
    ExpectAnswer(1);
    ExpectAnswer(2);
  }
}

TEST_P(EngineTest, StepsKeepTheirBounds) {
  limits_.step_rows = 40;
  Build();
  int32_t most_sequences = 0;
  ops_.on_step = [&](const kernels::StepRows& rows) {
    EXPECT_LE(rows.rows, 40);
    most_sequences = std::max(most_sequences, rows.sequences);
    EXPECT_EQ(rows.sequence_row[rows.sequences], rows.rows);
    return kernels::OpError{};
  };
  h().GrantAll();
  for (RequestId id = 1; id <= 9; ++id) Submit(Request(id, 40, 30));
  h().Settle();
  EXPECT_EQ(most_sequences, 4);
  for (RequestId id = 1; id <= 9; ++id) ExpectAnswer(id);
}

TEST_P(EngineTest, StopIds) {
  Build();
  h().GrantAll();
  SequenceRequest request = Request(1, 50, 200);
  const FakeAnswer whole = FakeAnswerOf(model_, request);
  request.stop_ids = {whole.tokens[9], whole.tokens[30]};
  Submit(request);
  Submit(Request(2, 60, 200));
  h().Settle();
  ExpectAnswer(1, SequenceEnd::kStop);
  EXPECT_LE(h().of(1).tokens.size(), 10u);
  EXPECT_EQ(h().of(1).tokens.back(), requests_[1].stop_ids[0]);
  ExpectAnswer(2);
  ExpectNothingHeld();
}

TEST_P(EngineTest, PromptLogprobs) {
  Build();
  h().GrantAll();
  SequenceRequest request = Request(1, 150, 3);
  request.prompt_logprobs = 2;
  request.logprobs = 4;
  Submit(request);
  Submit(Request(2, 77, 3));
  SequenceRequest single = Request(3, 1, 2);
  single.prompt_logprobs = 0;
  Submit(single);
  h().Settle();
  const FakeAnswer answer = FakeAnswerOf(model_, request);
  const Outcome& outcome = h().of(1);
  ASSERT_EQ(outcome.prompt.size(), 150u);
  EXPECT_EQ(outcome.prompt[0].id, request.prompt[0]);
  for (size_t i = 1; i < 150; ++i) {
    EXPECT_EQ(outcome.prompt[i].id, request.prompt[i]);
    EXPECT_EQ(outcome.prompt[i].logprob, answer.prompt_logprobs[i - 1]) << i;
    ASSERT_EQ(outcome.prompt[i].top_ids.size(), 2u);
    EXPECT_GE(outcome.prompt[i].top_logprobs[0], outcome.prompt[i].top_logprobs[1]);
  }
  ASSERT_EQ(outcome.results[0].top_ids.size(), 4u);
  EXPECT_TRUE(h().of(2).prompt.empty());
  EXPECT_TRUE(h().of(2).results[0].top_ids.empty());
  ASSERT_EQ(h().of(3).prompt.size(), 1u);
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
}

TEST_P(EngineTest, CancellationWithinTwoSteps) {
  Build();
  h().GrantAll();
  Submit(Request(1, 20, 300));
  Submit(Request(2, 20, 60));
  h().Iterate(10);
  engine().Cancel(1);
  const size_t before = h().of(1).tokens.size();
  h().Iterate(1);
  EXPECT_EQ(h().of(1).end, SequenceEnd::kCancelled);
  EXPECT_LE(h().of(1).tokens.size(), before + 2);
  ExpectBeginning(1);
  engine().Cancel(1);  // twice, and one that never was: nothing
  engine().Cancel(99);
  h().Settle();
  ExpectAnswer(2);
  EXPECT_EQ(h().of(1).events_after_end, 0);
  ExpectNothingHeld();
}

TEST_P(EngineTest, CancellationOfOnesThatWaitOrArePaused) {
  Build();
  Submit(Request(1, 20, 30));
  h().Iterate(2);
  engine().Cancel(1);
  h().Iterate(1);
  EXPECT_EQ(h().of(1).end, SequenceEnd::kCancelled);
  h().GrantAll();
  Submit(Request(2, 20, 300));
  for (int i = 0; i < 1000 && h().of(2).tokens.size() < 5; ++i) h().Iterate(1);
  h().TakeAll(true);
  h().Settle();
  EXPECT_EQ(h().of(2).paused, 1);
  EXPECT_GT(h().reports().back().host_kv_bytes, 0u);
  engine().Cancel(2);  // without a lease
  h().Settle();
  EXPECT_EQ(h().of(2).end, SequenceEnd::kCancelled);
  EXPECT_EQ(h().reports().back().host_kv_bytes, 0u);
  ExpectNothingHeld();
}

TEST_P(EngineTest, FinishIsAStop) {
  Build();
  h().GrantAll();
  Submit(Request(1, 20, 300));
  h().Iterate(10);
  engine().Finish(1);
  h().Settle();
  EXPECT_EQ(h().of(1).end, SequenceEnd::kStop);
  ExpectBeginning(1);
}

TEST_P(EngineTest, Deadlines) {
  Build();
  h().GrantAll();
  SequenceRequest past = Request(1, 20, 30);
  past.deadline = 1;
  Submit(past);
  SequenceRequest soon = Request(2, 20, 300);
  soon.deadline = h().clock().Now() + kSecond;
  Submit(soon);
  h().Iterate(10);
  EXPECT_EQ(h().of(1).end, SequenceEnd::kDeadline);
  EXPECT_TRUE(h().of(1).tokens.empty());
  EXPECT_EQ(h().of(2).end, SequenceEnd::kNone);
  h().clock().Advance(kSecond);
  const size_t before = h().of(2).tokens.size();
  h().Iterate(1);
  EXPECT_EQ(h().of(2).end, SequenceEnd::kDeadline);
  EXPECT_LE(h().of(2).tokens.size(), before + 2);
  ExpectBeginning(2);
  h().Settle();
  ExpectNothingHeld();
}

TEST_P(EngineTest, AFailedStepEndsItsSequencesOnly) {
  Build();
  h().GrantAll();
  Submit(Request(1, 20, 50));
  h().Iterate(5);
  bool fail = true;
  ops_.on_step = [&](const kernels::StepRows&) {
    return std::exchange(fail, false) ? kernels::OpError{"no such kernel"} : kernels::OpError{};
  };
  h().Settle();
  EXPECT_EQ(h().of(1).end, SequenceEnd::kError);
  EXPECT_NE(h().of(1).error.find("no such kernel"), std::string::npos);
  Submit(Request(2, 20, 50));
  h().Settle();
  ExpectAnswer(2);
  ExpectNothingHeld();
}

TEST_P(EngineTest, LogitsThatAreNoAnswerEndTheirSequenceOnly) {
  Build();
  h().GrantAll();
  constexpr int32_t kPrompt = 20, kTokens = 50, kGood = 7;
  ops_.no_answer = [](const kernels::SamplingRow& row) {
    return row.seed == 2 && row.position >= kPrompt - 1 + kGood;
  };
  for (const RequestId id : {1, 2, 3}) Submit(Request(id, kPrompt, kTokens));
  h().Settle();
  EXPECT_EQ(h().of(2).end, SequenceEnd::kNotNumbers);
  EXPECT_EQ(h().of(2).tokens.size(), size_t{kGood});
  EXPECT_EQ(h().of(2).events_after_end, 0);
  ExpectBeginning(2);
  ExpectAnswer(1);
  ExpectAnswer(3);
  Submit(Request(4, kPrompt, kTokens));  // where 2 has been
  h().Settle();
  ExpectAnswer(4);
  ExpectNothingHeld();
}

TEST_P(EngineTest, PromptRowsThatAreNoAnswerEndTheirSequence) {
  for (const int32_t at : {0, 31, 32, 70, 98}) {
    Build();
    h().GrantAll();
    ops_.no_answer = [at](const kernels::SamplingRow& row) {
      return row.seed == 1 && row.position == at;
    };
    SequenceRequest scored = Request(1, 100, 5), other = Request(2, 100, 5);
    scored.prompt_logprobs = other.prompt_logprobs = 2;
    Submit(scored);
    Submit(other);
    h().Settle();
    EXPECT_EQ(h().of(1).end, SequenceEnd::kNotNumbers) << at;
    EXPECT_TRUE(h().of(1).tokens.empty()) << at;
    EXPECT_EQ(h().of(1).events_after_end, 0) << at;
    ExpectAnswer(2);
    ExpectNothingHeld();
  }
}

TEST_P(EngineTest, WhatDoesNotFitTheContextIsRefused) {
  Build();
  h().GrantAll();
  Submit(Request(1, 500, 13));
  Submit(Request(2, 500, 0));
  h().Settle();
  EXPECT_EQ(h().of(1).end, SequenceEnd::kError);
  EXPECT_NE(h().of(1).error.find("512"), std::string::npos);
  EXPECT_EQ(h().of(2).end, SequenceEnd::kError);
}

TEST_P(EngineTest, TimesAreInOrder) {
  Build();
  h().GrantAll();
  Submit(Request(1, 100, 5));
  while (h().of(1).end == SequenceEnd::kNone) {
    h().clock().Advance(kMillisecond);
    h().Iterate(1);
  }
  const SequenceTimes& times = h().of(1).times;
  EXPECT_LE(times.submitted, times.prefill_started);
  EXPECT_LT(times.prefill_started, times.first_token);
  EXPECT_LT(times.first_token, times.last_token);
}

TEST_P(EngineTest, FixedBytesAreWhatIsAllocated) {
  Build();
  const EngineBytes planned = FixedBytesOf(model_.arch, ops_, limits_);
  EXPECT_EQ(h().faults().allocated(), planned.device);
  EXPECT_EQ(h().faults().registered(), planned.host);
}

// Requests, cancellations, suspensions and leases at random; every answer is exact.
TEST_P(EngineTest, RandomLives) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    Build();
    requests_.clear();
    std::mt19937 random(seed);
    RequestId next = 1;
    std::set<RequestId> cancelled;
    for (int i = 0; i < 600; ++i) {
      const uint32_t what = random() % 40;
      const RequestId some = 1 + random() % next;
      if (what < 4 && next < 40) {
        SequenceRequest request = Request(next++, 1 + random() % 200, 1 + random() % 120);
        if (random() % 3 == 0) request.prompt_logprobs = random() % 3;
        request.priority = random() % 2;
        Submit(request);
      } else if (what == 5) {
        engine().Cancel(some);
        cancelled.insert(some);
      } else if (what < 8) {
        engine().Suspend(some, random() % 2 == 0);
      } else if (what == 8) {
        const uint64_t weights = random() % 2 ? model_.image.bytes : random() % model_.image.bytes;
        const uint64_t kv = random() % 2 ? h().kv().smallest_bytes + random() % (1 << 20)
                                         : random() % h().kv().useful_bytes;
        h().Grant(weights, kv, random() % 2, random() % 2 ? 1 << 20 : 0);
      }
      h().Iterate(1 + random() % 4);
    }
    for (RequestId id = 1; id < next; ++id) engine().Suspend(id, false);
    h().GrantAll();
    h().Settle();
    for (RequestId id = 1; id < next; ++id) {
      if (cancelled.count(id) && h().of(id).end == SequenceEnd::kCancelled) {
        ExpectBeginning(id);
      } else {
        ExpectAnswer(id);
      }
    }
    ExpectNothingHeld();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace switchyard::worker
