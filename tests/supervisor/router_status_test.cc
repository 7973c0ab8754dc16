// What the router tells of its models, in the same world as router_test.

#include <gtest/gtest.h>

#include "common/utf8.h"
#include "tests/support/router_harness.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// A string that is not UTF-8 would cost a client the whole status, of every model.
TEST(RouterStatus, ShowsWhatComesFromOutsideAsUtf8) {
  RouterOptions options;
  options.devices = {Device{"cpu", 300 * kMiB, 0}};
  options.host_budget_bytes = 1024 * kMiB;
  ModelEntry broken = FakeModel("a", 10 * kMiB, 8 * kMiB, 10, 10 * kMiB, 40 * kMiB);
  broken.problem = absl::InvalidArgumentError("said \xFF\xE4\xB8");
  RouterHarness harness(1, WorldRules{}, options, {broken});
  harness.router->Start();
  EXPECT_EQ(harness.StatusOf("a").error(), "said \xEF\xBF\xBD\xEF\xBF\xBD");
  harness.DrainAndCheck(10 * kSecond);
  EXPECT_EQ(harness.violation(), "");
}

TEST(RouterStatus, AReloadThatFailedIsToldUntilOneIsGood) {
  RouterOptions options;
  options.devices = {Device{"cpu", 300 * kMiB, 0}};
  RouterHarness harness(1, WorldRules{}, options, {});
  harness.router->Start();
  harness.router->NoteReload(absl::InvalidArgumentError("c:1:1: no such field: \xFF"));
  harness.RunFor(7 * kSecond);
  v1::Status status = harness.router->GetStatus();
  EXPECT_EQ(status.reload_error(), "c:1:1: no such field: \xEF\xBF\xBD");
  EXPECT_NEAR(status.reload_error_age_s(), 7, 0.01);
  harness.router->NoteReload(absl::OkStatus());
  status = harness.router->GetStatus();
  EXPECT_EQ(status.reload_error(), "");
  EXPECT_EQ(status.reload_error_age_s(), 0);
  harness.DrainAndCheck(10 * kSecond);
}

// Of a supervisor with these models, right after its start: "" and Inference alike, and Control.
struct Served {
  bool inference = false;
  bool control = false;
};
Served AtStart(std::vector<ModelEntry> catalog) {
  RouterOptions options;
  options.devices = {Device{"cpu", 300 * kMiB, 0}};
  options.host_budget_bytes = 1024 * kMiB;
  RouterHarness harness(1, WorldRules{}, options, std::move(catalog));
  harness.router->Start();
  auto& health = harness.world.health;
  EXPECT_EQ(health.at(""), health.at("switchyard.v1.Inference"));
  const Served served{health.at(""), health.at("switchyard.v1.Control")};
  harness.DrainAndCheck(10 * kSecond);
  EXPECT_EQ(harness.violation(), "");
  return served;
}

TEST(RouterStatus, InferenceServesIfAnyModelDoes) {
  const ModelEntry good = FakeModel("a", 10 * kMiB, 8 * kMiB, 10, 10 * kMiB, 40 * kMiB);
  ModelEntry broken = FakeModel("b", 10 * kMiB, 8 * kMiB, 10, 10 * kMiB, 40 * kMiB);
  broken.problem = absl::InvalidArgumentError("no such file");
  EXPECT_TRUE(AtStart({good, broken}).inference);
  EXPECT_FALSE(AtStart({broken}).inference);
  EXPECT_TRUE(AtStart({}).inference);  // nobody is kept from anything
  EXPECT_TRUE(AtStart({broken}).control);
}

}  // namespace
}  // namespace switchyard::supervisor
