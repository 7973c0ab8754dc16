// What is done and told when a device has no room: strangers and pinned models have it.

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterRoom : public RouterFixture {
 protected:
  bool Serves(const std::string& model) { return h_->world.health["model/" + model]; }
  bool InferenceServes() {
    EXPECT_EQ(h_->world.health[""], h_->world.health["switchyard.v1.Inference"]);
    return h_->world.health[""];
  }
};

TEST_F(RouterRoom, WhoStrangersLeaveNoRoomDoesNotServeAndSaysWhy) {
  auto catalog = Catalog();
  catalog.push_back(FakeModel("small", 2 * kMiB, kMiB, 4, kMiB, kMiB));
  Begin(150 * kMiB, 1024 * kMiB, catalog);
  Settle();
  EXPECT_TRUE(Serves("a"));
  h_->Foreign("cpu", 120 * kMiB);
  h_->RunFor(3 * kSecond);
  EXPECT_FALSE(Serves("a"));
  EXPECT_EQ(h_->StatusOf("a").error(),
            "a needs 100.0 MiB (fixed 10.0 MiB + weights 80.0 MiB + smallest KV pool 10.0 MiB), "
            "but cpu has 150.0 MiB: 0 B reserve, 120.0 MiB used by other programs");
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  EXPECT_TRUE(Serves("small"));
  EXPECT_EQ(h_->StatusOf("small").error(), "");
  EXPECT_TRUE(InferenceServes());
  h_->Foreign("cpu", 145 * kMiB);
  h_->RunFor(3 * kSecond);
  EXPECT_FALSE(InferenceServes());
  h_->Foreign("cpu", 50 * kMiB);
  h_->RunFor(kSecond);
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_EQ(h_->StatusOf("a").last_failure(), "");
}

// A program that starts or ends may take much for a moment.
TEST_F(RouterRoom, AMomentWithoutRoomIsNotTold) {
  Begin(150 * kMiB);
  Settle();
  for (int round = 0; round < 3; ++round) {
    h_->Foreign("cpu", 120 * kMiB);
    h_->RunFor(1900 * kMillisecond);
    EXPECT_TRUE(Serves("a"));
    EXPECT_EQ(h_->StatusOf("a").error(), "");
    h_->Foreign("cpu", 20 * kMiB);
    h_->RunFor(kSecond / 2);
  }
}

// Strangers cost a resident model its spare KV, or nothing if it is pinned: its answers come.
TEST_F(RouterRoom, WhoIsResidentServesWhateverStrangersHave) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  h_->Foreign("cpu", 80 * kMiB);
  h_->RunFor(5 * kSecond);
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  auto client = h_->Generate("a", 2);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

TEST_F(RouterRoom, WhoPinsLeaveNoRoomDoesNotServeUntilTheyDo) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  EXPECT_TRUE(Serves("b"));
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  h_->RunFor(kSecond);
  EXPECT_TRUE(Serves("a"));
  EXPECT_FALSE(Serves("b"));
  EXPECT_NE(h_->StatusOf("b").error().find("kept by a (pinned)"), std::string::npos)
      << h_->StatusOf("b").error();
  ASSERT_EQ(h_->router->Pin("a", false), absl::OkStatus());
  EXPECT_TRUE(Serves("b"));
  EXPECT_EQ(h_->StatusOf("b").error(), "");
}

}  // namespace
}  // namespace switchyard::supervisor
