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

}  // namespace
}  // namespace switchyard::supervisor
