// When systemd's watchdog is told, with a router in the same world as router_test.

#include "supervisor/service_manager.h"

#include <cstdlib>
#include <string>

#include "supervisor/notify_socket.h"
#include "tests/supervisor/router_fixture.h"
#include "tests/support/fake_service_manager.h"

namespace switchyard::supervisor {
namespace {

class ServiceManagerTest : public RouterFixture {
 protected:
  void SetUp() override {
    ::setenv("WATCHDOG_USEC", "30000000", 1);
    ::unsetenv("WATCHDOG_PID");
  }
  void TearDown() override {
    ::unsetenv("WATCHDOG_USEC");
    RouterFixture::TearDown();
  }
  // How often the watchdog was told since the last time.
  int Pets() {
    int pets = 0;
    for (const auto& message : systemd_.Heard()) pets += message.text == "WATCHDOG=1" ? 1 : 0;
    return pets;
  }
  // Little by little, as the socket takes a few messages only.
  int PetsWithin(int seconds) {
    int pets = 0;
    for (; seconds > 0; --seconds) {
      h_->RunFor(kSecond);
      pets += Pets();
    }
    return pets;
  }

  testing::FakeServiceManager systemd_;
};

TEST_F(ServiceManagerTest, OneThatDoesNotReadHoldsUpNobodyAndHasTheFirstOfItLater) {
  ASSERT_TRUE(systemd_.bound());
  for (int i = 0; i < 1000; ++i) Notify("STATUS=" + std::to_string(i));
  int next = 0;
  for (size_t heard = 1; heard > 0; SendWaitingNotifications()) {
    const auto messages = systemd_.Heard();
    heard = messages.size();
    for (const auto& message : messages) {
      ASSERT_EQ(message.text, "STATUS=" + std::to_string(next++));
    }
  }
  EXPECT_GE(next, 256);
  EXPECT_LT(next, 1000);
  Notify("STATUS=last");
  EXPECT_EQ(systemd_.Heard().at(0).text, "STATUS=last");
}

TEST_F(ServiceManagerTest, WhatFoundNoRoomIsSentAgainAndOtherwiseNothingWakes) {
  ASSERT_TRUE(systemd_.bound());
  ::unsetenv("WATCHDOG_USEC");
  Begin(150 * kMiB);
  FakeTimers timers;
  ServiceManager manager(&timers, h_->router.get());
  manager.Ready();
  EXPECT_EQ(timers.size(), 0u);
  int sent = 0;
  for (; timers.size() == 0; ++sent) Notify("X_NUMBER=" + std::to_string(sent));
  EXPECT_EQ(timers.size(), 1u);
  int heard = 0;
  const auto hear = [&] {
    for (const auto& message : systemd_.Heard()) heard += message.text.rfind("X_", 0) == 0 ? 1 : 0;
  };
  EXPECT_TRUE(timers.Step());  // it still does not read
  EXPECT_EQ(timers.size(), 1u);
  hear();
  EXPECT_EQ(heard, sent - 1);
  EXPECT_TRUE(timers.Step());
  hear();
  EXPECT_EQ(heard, sent);
  EXPECT_EQ(timers.size(), 0u);
}

TEST_F(ServiceManagerTest, OneThatWasStuckTellsTheWatchdogAsSoonAsItIsNot) {
  ASSERT_TRUE(systemd_.bound());
  options_.probe_interval = 10 * kSecond;
  Begin(150 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.submits == 1; }));
  h_->RunFor(kSecond);
  h_->world.timers.Jump(11 * kSecond);
  ServiceManager manager(&h_->world.timers, h_->router.get());
  manager.Ready();
  ASSERT_NE(h_->router->Stuck(), "");
  EXPECT_EQ(Pets(), 0);
  EXPECT_EQ(PetsWithin(2), 1);  // of the 15 s that are left
  EXPECT_EQ(h_->router->Stuck(), "");
  EXPECT_EQ(PetsWithin(28), 1) << "from then on it is twice in the time, as ever";
}

}  // namespace
}  // namespace switchyard::supervisor
