#include "worker/requests.h"

#include <gtest/gtest.h>

#include "tests/worker/service/support.h"

namespace switchyard::worker {
namespace {

// Nobody may ask for a deadline far away, leave, and be remembered until then.
TEST(Requests, WhatIsCancelledBeforeThereIsAnEngineLeavesNothing) {
  const auto model = OpenGolden(GoldenEntry("llama_defaults"));
  const SteadyClock clock;
  TestOutbox outbox;
  Requests requests(*model, clock, outbox);
  for (uint64_t id = 1; id <= 3; ++id) {
    v1::Submit submit;
    submit.set_request_id(id);
    submit.mutable_request()->mutable_ids()->add_ids(1);
    submit.set_deadline_ns(3600 * kSecond);
    requests.Submit(submit);
    outbox.WaitFor([&](const auto& m) { return m.accepted().request_id() == id; });
  }
  EXPECT_EQ(requests.waiting(), 3u);
  EXPECT_EQ(requests.watched(), 3u);
  for (uint64_t id = 1; id <= 3; ++id) {
    requests.Cancel(id);
    EXPECT_EQ(requests.waiting(), 3 - id);
    EXPECT_EQ(requests.watched(), 3 - id);
  }
}

}  // namespace
}  // namespace switchyard::worker
