#include "supervisor/health.h"

#include <gtest/gtest.h>

#include <vector>

namespace switchyard::supervisor {
namespace {

using Response = Health::Response;

struct Recorder : Health::Sink {
  void Write(const Response& response) override { heard.push_back(response.status()); }
  void Finish(absl::Status status) override { end = std::move(status); }
  std::vector<Response::ServingStatus> heard;
  absl::Status end;
};

TEST(Health, CheckKnowsWhatWasTold) {
  Health health;
  EXPECT_EQ(health.Check("a").status().code(), absl::StatusCode::kNotFound);
  health.SetServing("a", true);
  health.SetServing("b", false);
  EXPECT_EQ(health.Check("a")->status(), Response::SERVING);
  EXPECT_EQ(health.Check("b")->status(), Response::NOT_SERVING);
}

TEST(Health, AWatchHearsTheStatusNowAndEveryChangeOfItsService) {
  Health health;
  health.SetServing("a", true);
  auto watch = std::make_shared<Recorder>();
  ASSERT_TRUE(health.Watch("a", watch).ok());
  health.SetServing("a", true);  // no change
  health.SetServing("b", true);
  health.SetServing("a", false);
  EXPECT_EQ(watch->heard,
            (std::vector<Response::ServingStatus>{Response::SERVING, Response::NOT_SERVING}));
}

TEST(Health, AServiceThatIsNotKnownMayStillCome) {
  Health health;
  auto watch = std::make_shared<Recorder>();
  ASSERT_TRUE(health.Watch("a", watch).ok());
  health.SetServing("a", true);
  EXPECT_EQ(watch->heard,
            (std::vector<Response::ServingStatus>{Response::SERVICE_UNKNOWN, Response::SERVING}));
}

TEST(Health, AServiceThatIsRemovedIsNotKnownAnyMore) {
  Health health;
  health.SetServing("a", true);
  auto watch = std::make_shared<Recorder>();
  ASSERT_TRUE(health.Watch("a", watch).ok());
  health.Remove("a");
  health.Remove("a");  // no change
  EXPECT_TRUE(absl::IsNotFound(health.Check("a").status()));
  health.SetServing("a", false);
  EXPECT_EQ(watch->heard,
            (std::vector<Response::ServingStatus>{Response::SERVING, Response::SERVICE_UNKNOWN,
                                                  Response::NOT_SERVING}));
}

TEST(Health, ALongNameIsRefused) {
  Health health;
  auto watch = std::make_shared<Recorder>();
  const std::string name(201, 'a');
  EXPECT_TRUE(absl::IsInvalidArgument(health.Check(name).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(health.Watch(name, watch)));
  EXPECT_TRUE(absl::IsNotFound(health.Check(name.substr(1)).status()));
  EXPECT_EQ(watch.use_count(), 1);
}

TEST(Health, AWatchThatStoppedHearsNothingAndOthersGoOn) {
  Health health;
  auto gone = std::make_shared<Recorder>(), stays = std::make_shared<Recorder>();
  ASSERT_TRUE(health.Watch("a", gone).ok());
  ASSERT_TRUE(health.Watch("a", stays).ok());
  health.StopWatching(gone.get());
  EXPECT_EQ(gone.use_count(), 1);
  health.SetServing("a", true);
  EXPECT_EQ(gone->heard.size(), 1u);
  EXPECT_EQ(stays->heard.size(), 2u);
  health.Close();
  EXPECT_TRUE(absl::IsUnavailable(stays->end));
  EXPECT_TRUE(gone->end.ok());
}

}  // namespace
}  // namespace switchyard::supervisor
