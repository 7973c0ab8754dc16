#pragma once

// The engine of a small model, whose lease a test gives and takes.

#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "tests/worker/engine/engine_harness.h"
#include "tests/worker/engine/fake_model.h"
#include "tests/worker/engine/fake_ops.h"

namespace switchyard::worker {

constexpr uint64_t kHost = uint64_t{1} << 30;

class LeaseTest : public testing::TestWithParam<Launching> {
 protected:
  LeaseTest() : model_(MakeFakeModel({0, 24, 0, 24, 0, 24})) {
    limits_.context_length = 512;
    limits_.max_sequences = 4;
    limits_.prefill_chunk = 32;
    limits_.launch_ahead = GetParam() == Launching::kEach ? 0 : 1;
    harness_ = std::make_unique<EngineHarness>(model_.arch, model_.image, model_.master.data(),
                                               limits_, ops_, GraphsOf(GetParam()));
  }

  Engine& engine() { return harness_->engine(); }
  EngineHarness& h() { return *harness_; }
  uint64_t image() const { return model_.image.bytes; }

  void Submit(RequestId id, int32_t prompt, int32_t max_tokens) {
    SequenceRequest request;
    request.id = id;
    for (int32_t i = 0; i < prompt; ++i) {
      request.prompt.push_back(static_cast<int32_t>((id * 31 + i * i) % 61));
    }
    request.max_tokens = max_tokens;
    request.sampling.seed = id;
    requests_[id] = request;
    engine().Submit(request);
  }
  void ExpectAnswer(RequestId id) {
    EXPECT_EQ(h().of(id).end, SequenceEnd::kLength) << id << h().of(id).error;
    EXPECT_EQ(h().of(id).tokens, FakeAnswerOf(model_, requests_[id]).tokens) << id;
    EXPECT_FALSE(ops_.corrupt);
  }
  void RunUntilTokens(RequestId id, size_t count) {
    while (h().of(id).tokens.size() < count) h().Iterate(1);
  }
  const LeaseReport& last() { return h().reports().back(); }

  FakeModel model_;
  FakeOps ops_;
  EngineLimits limits_;
  std::unique_ptr<EngineHarness> harness_;
  std::map<RequestId, SequenceRequest> requests_;
};

}  // namespace switchyard::worker
