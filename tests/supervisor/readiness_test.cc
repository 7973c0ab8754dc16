#include "supervisor/readiness.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

using Kind = Standing::Kind;
using Names = std::vector<std::string>;

Standing Of(const char* model, Kind kind) { return {model, false, kind}; }
Standing Pinned(const char* model, Kind kind) { return {model, true, kind}; }

Readiness At(const std::vector<Standing>& models, Nanos waited = 0, Nanos idle = 0) {
  return ReadinessOf(models, waited, idle);
}

TEST(Readiness, OneModelThatAnswersIsEnough) {
  EXPECT_TRUE(At({Of("a", Kind::kComes), Of("b", Kind::kAnswers)}).ready);
  EXPECT_FALSE(At({Of("a", Kind::kComes), Of("b", Kind::kCannot)}).ready);
  EXPECT_EQ(At({Of("a", Kind::kComes), Of("b", Kind::kCannot)}).missing, Names({"a"}));
}

TEST(Readiness, EveryPinnedModelIsWaitedFor) {
  const Readiness waits =
      At({Of("a", Kind::kAnswers), Pinned("b", Kind::kComes), Pinned("c", Kind::kAnswers)});
  EXPECT_FALSE(waits.ready);
  EXPECT_EQ(waits.missing, Names({"b"}));
  EXPECT_TRUE(At({Of("a", Kind::kComes), Pinned("b", Kind::kAnswers)}).ready);
}

TEST(Readiness, WhatCannotComeIsNotWaitedFor) {
  EXPECT_TRUE(At({Of("a", Kind::kAnswers), Pinned("b", Kind::kCannot)}).ready);
  EXPECT_FALSE(At({Of("a", Kind::kComes), Pinned("b", Kind::kCannot)}).ready);
  EXPECT_TRUE(At({Of("a", Kind::kCannot), Pinned("b", Kind::kCannot)}).ready);
  EXPECT_TRUE(At({}).ready);
}

TEST(Readiness, NothingIsWaitedForForEver) {
  const std::vector<Standing> models = {Of("a", Kind::kAnswers), Pinned("b", Kind::kComes)};
  EXPECT_FALSE(At(models, kLongestUnready - 1, kLongestIdle - 1).ready);
  for (const Readiness& given_up : {At(models, kLongestUnready, 0), At(models, 0, kLongestIdle)}) {
    EXPECT_TRUE(given_up.ready);
    EXPECT_EQ(given_up.missing, Names({"b"}));
  }
}

}  // namespace
}  // namespace switchyard::supervisor
