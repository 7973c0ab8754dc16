// When systemd is told that we are ready, and its watchdog, with a router in the same world as
// router_test.

#include "supervisor/service_manager.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/notify_socket.h"
#include "supervisor/status_line.h"
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
    manager_.reset();
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

  // Of a thread that goes round, unless it is frozen.
  Echo Hears() {
    return [this](const std::function<void()>& back) {
      if (!frozen_) back();
    };
  }

  // As the supervisor does whom somebody listens to.
  void BeginTelling(uint64_t capacity, std::vector<ModelEntry> catalog = Catalog()) {
    ::unsetenv("WATCHDOG_USEC");
    options_.prove_pinned = ServiceManager::Listens();
    Begin(capacity, 1024 * kMiB, std::move(catalog));
  }
  void Start() {
    manager_.emplace(&h_->world.timers, h_->router.get(), Hears());
    manager_->Start();
  }
  // Whether READY has been heard within this time; then it stops.
  bool ReadyWithin(Nanos time) {
    const Nanos end = h_->world.timers.Now() + time;
    while (Heard("READY=1") == 0 && h_->world.timers.Now() < end) h_->RunFor(200 * kMillisecond);
    return Heard("READY=1") > 0;
  }
  // How many messages that begin like this were heard so far.
  int64_t Heard(const std::string& prefix) {
    for (const auto& message : systemd_.Heard()) heard_.push_back(message.text);
    return std::count_if(heard_.begin(), heard_.end(), [&](const std::string& text) {
      return text.compare(0, prefix.size(), prefix) == 0;
    });
  }
  std::string LastStatus() {
    Heard("");
    for (auto it = heard_.rbegin(); it != heard_.rend(); ++it) {
      if (it->compare(0, 7, "STATUS=") == 0) return *it;
    }
    return "";
  }

  bool frozen_ = false;
  testing::FakeServiceManager systemd_;
  std::optional<ServiceManager> manager_;
  std::vector<std::string> heard_;
};

TEST_F(ServiceManagerTest, ReadyIsToldOnceAWorkerAnswers) {
  ASSERT_TRUE(systemd_.bound());
  BeginTelling(150 * kMiB);
  Start();
  EXPECT_EQ(Heard("READY=1"), 0);
  EXPECT_EQ(Heard("EXTEND_TIMEOUT_USEC=60000000"), 1);
  EXPECT_EQ(LastStatus(), "STATUS=3 models: 3 cold; not ready, waits for a, b, c");
  ASSERT_TRUE(ReadyWithin(2 * kSecond));
  Settle();
  EXPECT_EQ(Heard("READY=1"), 1);
  EXPECT_EQ(Heard("EXTEND_TIMEOUT_USEC"), 1);
  EXPECT_EQ(LastStatus(), "STATUS=3 models: 3 warm");
}

TEST_F(ServiceManagerTest, ReadyIsToldOnceAPinnedModelHasRunAToken) {
  ASSERT_TRUE(systemd_.bound());
  BeginTelling(150 * kMiB, WithPinned(0));
  Start();
  const Nanos then = h_->world.timers.Now();
  while (h_->StatusOf("a").state() != v1::RESIDENT) {
    ASSERT_EQ(Heard("READY=1"), 0);
    h_->RunFor(kMillisecond);
  }
  EXPECT_EQ(h_->world.submits, 0u);
  ASSERT_TRUE(ReadyWithin(2 * kSecond));
  EXPECT_EQ(h_->world.submits, 1u);
  EXPECT_LT(h_->world.timers.Now() - then, 5 * kSecond) << "and not when a probe would be due";
  h_->RunFor(20 * kSecond);
  EXPECT_EQ(h_->world.submits, 1u);
}

TEST_F(ServiceManagerTest, WithoutProbesResidentIsEnough) {
  ASSERT_TRUE(systemd_.bound());
  options_.probe_interval = 0;
  BeginTelling(150 * kMiB, WithPinned(0));
  Start();
  ASSERT_TRUE(ReadyWithin(5 * kSecond));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  EXPECT_EQ(h_->world.submits, 0u);
}

TEST_F(ServiceManagerTest, APinnedModelThatCannotComeIsNotWaitedFor) {
  ASSERT_TRUE(systemd_.bound());
  auto catalog = WithPinned(0);
  catalog[0].problem = absl::FailedPreconditionError("no checkpoint");
  BeginTelling(150 * kMiB, std::move(catalog));
  Start();
  ASSERT_TRUE(ReadyWithin(2 * kSecond));
  EXPECT_EQ(LastStatus().find("ready"), std::string::npos) << LastStatus();
}

TEST_F(ServiceManagerTest, AColdLoadThatGetsOnMayTakeItsTime) {
  ASSERT_TRUE(systemd_.bound());
  rules_.start = 100 * kSecond;
  rules_.fills = 19 * kSecond;
  rules_.bytes_per_second = 2.2 * kMiB;
  BeginTelling(150 * kMiB, WithPinned(0));
  Start();
  const Nanos then = h_->world.timers.Now();
  EXPECT_FALSE(ReadyWithin(16 * kSecond));
  EXPECT_NE(LastStatus().find("not ready, waits for a"), std::string::npos) << LastStatus();
  ASSERT_TRUE(ReadyWithin(300 * kSecond));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  EXPECT_NEAR(Heard("EXTEND_TIMEOUT_USEC=60000000"),
              (h_->world.timers.Now() - then) / (15 * kSecond) + 1, 1);
}

// A pin alone drives out nobody who works.
TEST_F(ServiceManagerTest, WhatGetsNowhereIsGivenUpAndToldUntilItIsThere) {
  ASSERT_TRUE(systemd_.bound());
  BeginTelling(150 * kMiB);
  Settle();
  auto busy = h_->Generate("b", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  ASSERT_TRUE(h_->router->Reload(WithPinned(0)).ok());
  Start();
  EXPECT_FALSE(ReadyWithin(119 * kSecond));
  ASSERT_TRUE(ReadyWithin(3 * kSecond));
  h_->RunFor(2 * kSecond);
  EXPECT_NE(LastStatus().find("; ready without a"), std::string::npos) << LastStatus();
  h_->Cancel(busy);
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(LastStatus(), "STATUS=3 models: 1 resident (a), 2 unwell (b, c)");
  EXPECT_EQ(Heard("READY=1"), 1);
}

TEST_F(ServiceManagerTest, AReloadBeforeItIsReadyDoesNotMakeItSo) {
  ASSERT_TRUE(systemd_.bound());
  BeginTelling(150 * kMiB);
  Start();
  manager_->Reloading();
  manager_->Reloaded();
  EXPECT_EQ(Heard("RELOADING=1"), 0);
  EXPECT_EQ(Heard("READY=1"), 0);
  ASSERT_TRUE(ReadyWithin(2 * kSecond));
  manager_->Reloading();
  manager_->Reloaded();
  EXPECT_EQ(Heard("RELOADING=1"), 1);
  EXPECT_EQ(Heard("READY=1"), 2);
  manager_->Reloading();
  manager_->Stopping(12 * kSecond);
  manager_->Reloaded();
  EXPECT_EQ(Heard("STOPPING=1"), 1);
  EXPECT_EQ(Heard("READY=1"), 2) << "nothing is ready that stops";
}

TEST_F(ServiceManagerTest, StoppingAsksForTheTimeThatItTakes) {
  ASSERT_TRUE(systemd_.bound());
  BeginTelling(150 * kMiB);
  Start();
  manager_->Stopping(3602 * kSecond);
  EXPECT_EQ(Heard("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=3602000000"), 1);
  manager_->Stopping(2 * kSecond);  // a second signal
  EXPECT_EQ(Heard("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=2000000"), 1);
}

TEST_F(ServiceManagerTest, ReadyIsFollowedByTheStatusOfThatMoment) {
  ASSERT_TRUE(systemd_.bound());
  BeginTelling(150 * kMiB, WithPinned(0));
  Start();
  std::string behind;
  h_->RunUntil([&] {
    const auto heard = systemd_.Heard();
    for (size_t i = 1; i < heard.size(); ++i) {
      if (heard[i - 1].text == "READY=1") behind = heard[i].text;
    }
    return !behind.empty();
  });
  EXPECT_EQ(behind, "STATUS=" + StatusLine(h_->router->GetStatus()));
  EXPECT_NE(behind.find("1 resident (a)"), std::string::npos) << behind;

  ASSERT_TRUE(Done(h_->Switch("b")));
  systemd_.Heard();
  manager_->Reloading();
  manager_->Reloaded();
  const auto heard = systemd_.Heard();
  ASSERT_EQ(heard.size(), 3u);
  EXPECT_EQ(heard[1].text, "READY=1");
  EXPECT_EQ(heard[2].text, "STATUS=" + StatusLine(h_->router->GetStatus()));
}

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
  Settle();
  FakeTimers timers;
  ServiceManager manager(&timers, h_->router.get(), Hears());
  manager.Start();
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
  ServiceManager manager(&h_->world.timers, h_->router.get(), Hears());
  manager.Start();
  ASSERT_NE(h_->router->Stuck(), "");
  EXPECT_EQ(Pets(), 0);
  EXPECT_EQ(PetsWithin(2), 1);  // of the 15 s that are left
  EXPECT_EQ(h_->router->Stuck(), "");
  EXPECT_EQ(PetsWithin(28), 1) << "from then on it is twice in the time, as ever";
}

// The event loop turns, and no call gets on.
TEST_F(ServiceManagerTest, TheWatchdogIsToldOnlyWhileCallsAreHeard) {
  ASSERT_TRUE(systemd_.bound());
  Begin(150 * kMiB);
  std::vector<std::function<void()>> unheard;
  const Echo echo = [&](std::function<void()> back) {
    frozen_ ? unheard.push_back(std::move(back)) : back();
  };
  ServiceManager manager(&h_->world.timers, h_->router.get(), echo);
  manager.Start();
  EXPECT_EQ(PetsWithin(46), 4);
  frozen_ = true;
  EXPECT_EQ(PetsWithin(100), 1) << "what was heard before that";
  ASSERT_EQ(unheard.size(), 1u);
  frozen_ = false;
  unheard[0]();
  EXPECT_EQ(PetsWithin(2), 1);
  EXPECT_EQ(PetsWithin(28), 1) << "from then on it is twice in the time, as ever";
}

}  // namespace
}  // namespace switchyard::supervisor
