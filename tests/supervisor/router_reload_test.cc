// What a reload adds, changes, removes and leaves alone, and who is the default after it.

#include <string>
#include <vector>

#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterReload : public RouterFixture {};

TEST_F(RouterReload, ReloadAddsChangesAndRemoves) {
  Begin(300 * kMiB);
  Settle();
  auto running = h_->Generate("b", 300);
  ASSERT_TRUE(h_->RunUntil([&] { return running->tokens > 3; }));
  auto catalog = Catalog();
  catalog[0].plan.set_kv_useful_bytes(50 * kMiB);  // a changes
  catalog[2] = FakeModel("d", kMiB, kMiB, 3, kMiB, kMiB);
  const v1::ReloadConfigReply reply = *h_->router->Reload(catalog);
  EXPECT_EQ(reply.added_size(), 1);
  EXPECT_EQ(reply.changed_size(), 1);
  EXPECT_EQ(reply.removed_size(), 1);
  EXPECT_EQ(h_->Generate("c", 1)->status.code(), absl::StatusCode::kNotFound);
  for (const char* name : {"a", "d"}) {
    auto client = h_->Generate(name, 1);
    ASSERT_TRUE(Done(client));
    EXPECT_TRUE(client->status.ok()) << name << client->status;
  }
  ASSERT_TRUE(Done(running));
  EXPECT_TRUE(running->status.ok());
  EXPECT_EQ(h_->world.WorkerOf("c"), nullptr);
  EXPECT_TRUE(h_->world.health.contains("model/d"));
  EXPECT_FALSE(h_->world.health.contains("model/c")) << "there is no such model any more";
}

// By which the default is chosen, too; who is on its way out comes last.
TEST_F(RouterReload, AReloadBringsTheOrderOfTheFiles) {
  auto catalog = Catalog();
  const std::vector<ModelEntry> first{catalog[1], catalog[2]};
  Begin(300 * kMiB, 1024 * kMiB, first);
  Settle();
  EXPECT_EQ(h_->router->GetStatus().default_model(), "b");
  const auto order = [&] {
    std::string names;
    for (const Standing& standing : h_->router->Standings()) names += standing.model;
    return names;
  };
  EXPECT_EQ(order(), "bc");
  ASSERT_TRUE(h_->router->Reload(catalog).ok());
  EXPECT_EQ(order(), "abc");
  const auto reply = h_->router->Reload({catalog[0], catalog[2]});
  EXPECT_EQ(order(), "acb");
  EXPECT_EQ(reply->default_model(), "a");
  Settle();
  EXPECT_EQ(order(), "ac");
}

TEST_F(RouterReload, WhoRunsInAModelThatAReloadChangesIsToldSo) {
  options_.drain_timeout = kSecond;
  Begin(300 * kMiB);
  for (const bool fits : {true, false}) {
    auto client = h_->Generate("a", 1'000'000);
    ASSERT_TRUE(h_->RunUntil([&] { return client->tokens > 0; }));
    auto catalog = Catalog();
    catalog[0].model.set_max_sequences(fits ? 3 : 4);
    if (!fits) catalog[0].problem = absl::FailedPreconditionError("a has no config.json");
    ASSERT_TRUE(h_->router->Reload(catalog).ok());
    ASSERT_TRUE(Done(client));
    EXPECT_EQ(client->status,
              absl::AbortedError(
                  fits ? "a was changed by a reload: ask again"
                       : "a cannot be served any more, since a reload: a has no config.json"));
  }
}

TEST_F(RouterReload, AReloadWhosePlannerCannotTellEndsNothingThatServes) {
  BeginPinned(300 * kMiB);
  Settle();
  auto running = h_->Generate("a", 1'000);
  ASSERT_TRUE(h_->RunUntil([&] { return running->tokens > 0; }));
  auto catalog = WithPinned(0);
  catalog[0] = UnplannedModel(catalog[0].model);
  const v1::ReloadConfigReply reply = *h_->router->Reload(catalog);
  EXPECT_EQ(reply.changed_size(), 0);
  ASSERT_EQ(reply.not_planned_size(), 1);
  EXPECT_EQ(reply.not_planned(0), "a");
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  EXPECT_TRUE(h_->StatusOf("a").pinned());
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  ASSERT_TRUE(Done(running));
  EXPECT_TRUE(running->status.ok()) << running->status;
  EXPECT_EQ(h_->StatusOf("a").loads(), 1u);
}

TEST_F(RouterReload, WhatIsNewInAnEntryThatWasNotPlannedIsNotLost) {
  Begin(300 * kMiB);
  Settle();
  auto catalog = WithPinned(0);
  catalog[0] = UnplannedModel(catalog[0].model);  // what a running worker does not care about
  catalog[1] = UnplannedModel(catalog[1].model);
  catalog[1].model.set_max_sequences(3);  // needs a plan
  const v1::ReloadConfigReply reply = *h_->router->Reload(catalog);
  EXPECT_EQ(reply.changed_size(), 2);
  EXPECT_EQ(reply.not_planned_size(), 2);
  Settle();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  EXPECT_EQ(h_->StatusOf("b").state(), v1::FAILED);
  const absl::Status refused = h_->Generate("b", 1)->status;
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(
      refused.message(),
      "planning ended with signal 9. It is planned again every 5 minutes; `switchyard reload` "
      "does so at once");
  EXPECT_EQ(RetryAfter(refused), 5 * 60 * kSecond);
  catalog = Catalog();
  catalog[1].model.set_max_sequences(3);
  ASSERT_TRUE(h_->router->Reload(catalog).ok());
  auto client = h_->Generate("b", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

TEST_F(RouterReload, WhoWaitsForTheMasterOfAModelThatAReloadChangesIsToldSo) {
  Begin(300 * kMiB);
  absl::Status prefetched;
  h_->router->Prefetch("a", [&](const auto& reply) { prefetched = reply.status(); });
  auto catalog = Catalog();
  catalog[0].model.set_max_sequences(3);
  ASSERT_TRUE(h_->router->Reload(catalog).ok());
  EXPECT_EQ(prefetched, absl::UnavailableError("a is being changed by a reload: ask again"));
}

TEST_F(RouterReload, ADefaultThatLeavesHasASuccessorAtOnce) {
  Begin(300 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("b")));
  auto running = h_->Generate("", 300);
  ASSERT_TRUE(h_->RunUntil([&] { return running->tokens > 3; }));
  auto catalog = Catalog();
  catalog.erase(catalog.begin() + 1);
  const auto reply = h_->router->Reload(catalog);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->default_model(), "a");
  EXPECT_EQ(reply->default_model_before(), "b");
  ASSERT_EQ(h_->StatusOf("b").name(), "") << "it is leaving, but still runs";
  EXPECT_EQ(h_->router->GetStatus().default_model(), "a");
  auto next = h_->Generate("", 1);
  ASSERT_TRUE(Done(next));
  EXPECT_TRUE(next->status.ok()) << next->status;
  ASSERT_TRUE(Done(running));
  EXPECT_TRUE(running->status.ok()) << running->status;
  EXPECT_EQ(h_->router->GetStatus().default_model(), "a");
}

TEST_F(RouterReload, NobodyIsMadeTheDefaultWhoCannotBeServed) {
  auto catalog = WithPinned(0);
  catalog[0].problem = absl::FailedPreconditionError("a has no config.json");
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  EXPECT_EQ(h_->router->GetStatus().default_model(), "b");
  ASSERT_TRUE(Done(h_->Switch("c")));
  catalog.pop_back();
  catalog[1].problem = absl::FailedPreconditionError("b has no config.json");
  EXPECT_EQ(h_->router->Reload(catalog)->default_model(), "a") << "there is no better one";
}

TEST_F(RouterReload, WhoNamesNoModelIsToldWhichOneFailed) {
  auto catalog = Catalog();
  catalog[1].problem = absl::InvalidArgumentError("there is no config.json");
  options_.default_model = "b";  // it stays so: somebody has said so
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  const std::string why =
      "there is no config.json. Once that is mended, `switchyard reload` looks again";
  EXPECT_EQ(h_->Generate("", 1)->status,
            absl::FailedPreconditionError(absl::StrCat(
                "no model is named, and b, the default until a `switchyard switch`, takes no "
                "requests: ",
                why)));
  EXPECT_EQ(h_->Generate("b", 1)->status, absl::FailedPreconditionError(why));
  absl::Status tokenized;
  h_->router->Tokenize({}, [&](const auto& reply) { tokenized = reply.status(); });
  EXPECT_EQ(tokenized, h_->Generate("", 1)->status);
  catalog[1].problem = absl::OkStatus();
  const auto reply = h_->router->Reload(catalog);
  EXPECT_EQ(reply->default_model(), "b");
  EXPECT_EQ(reply->default_model_before(), "");
}

TEST_F(RouterReload, AReloadTellsOfNewSizesOfDevices) {
  Begin(300 * kMiB);
  v1::ReloadConfigReply reply = *h_->router->Reload(Catalog(), {Device{"cpu", 300 * kMiB, 0}});
  EXPECT_EQ(reply.devices_size(), 0);
  reply = *h_->router->Reload(Catalog(), {Device{"cpu", 400 * kMiB, 0}});
  ASSERT_EQ(reply.devices_size(), 1);
  EXPECT_EQ(reply.devices(0).name(), "cpu");
  EXPECT_EQ(reply.devices(0).capacity_bytes(), 400 * kMiB);
  EXPECT_EQ(reply.devices(0).capacity_bytes_before(), 300 * kMiB);
  EXPECT_EQ(reply.changed_size(), 0);
}

}  // namespace
}  // namespace switchyard::supervisor
