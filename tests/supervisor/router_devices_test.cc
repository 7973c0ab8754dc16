// What the router makes of what the driver says, in the same world as router_test.

#include <gtest/gtest.h>

#include "tests/support/router_harness.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// Models a and b on one GPU, with room for both.
class RouterDevices : public ::testing::Test {
 protected:
  void SetUp() override {
    RouterOptions options;
    options.devices = {Device{"GPU-1", 300 * kMiB, 0}};
    options.host_budget_bytes = 1024 * kMiB;
    h_ = std::make_unique<RouterHarness>(
        1, WorldRules{}, options,
        std::vector<ModelEntry>{FakeModel("a", 10 * kMiB, 8 * kMiB, 10, 10 * kMiB, 40 * kMiB),
                                FakeModel("b", 10 * kMiB, 8 * kMiB, 10, 10 * kMiB, 40 * kMiB)});
    h_->router->Start();
    h_->RunFor(kSecond);
  }
  void TearDown() override {
    h_->DrainAndCheck(10 * kSecond);
    EXPECT_EQ(h_->violation(), "");
  }
  DeviceSample Sample() const {
    DeviceSample sample;
    sample.device = "GPU-1";
    sample.at = h_->world.timers.Now();
    return sample;
  }
  // The card's counter is at `joules`; every worker has been heard since the last time.
  void Used(uint64_t joules) {
    h_->RunFor(kSecond);
    DeviceSample sample = Sample();
    sample.millijoules = joules * 1000;
    h_->router->OnDeviceSample(std::move(sample));
  }
  void Answer(const std::string& model, uint32_t tokens) {
    auto client = h_->Generate(model, tokens);
    ASSERT_TRUE(h_->RunUntil([&] { return client->finishes > 0; }));
    ASSERT_TRUE(client->status.ok()) << client->status;
  }
  v1::DeviceStatus DeviceNow() const { return h_->router->GetStatus().devices(0); }
  v1::ModelStatus Model(const std::string& name) const { return h_->StatusOf(name); }
  int PidOf(const std::string& model) const { return Model(model).worker_pid(); }

  std::unique_ptr<RouterHarness> h_;
};

TEST_F(RouterDevices, NothingIsMadeUp) {
  Answer("a", 10);
  for (int round = 0; round < 2; ++round) {
    const v1::DeviceStatus device = DeviceNow();
    EXPECT_FALSE(device.has_utilization_percent() || device.has_watts() || device.has_celsius() ||
                 device.has_joules() || device.has_processes());
    EXPECT_FALSE(Model("a").has_joules() || Model("a").has_joules_per_token());
    h_->router->OnDeviceSample(Sample());  // a card that says nothing is no different
  }
  DeviceSample other = Sample();
  other.device = "GPU-2";
  other.celsius = 50;
  h_->router->OnDeviceSample(other);
  EXPECT_FALSE(DeviceNow().has_celsius());
}

TEST_F(RouterDevices, TellsWhatTheDriverSays) {
  DeviceSample sample = Sample();
  sample.utilization_percent = 0;
  sample.milliwatts = 412'500;
  sample.celsius = 54;
  sample.millijoules = 99;
  sample.processes.emplace();
  h_->router->OnDeviceSample(sample);
  const v1::DeviceStatus device = DeviceNow();
  ASSERT_TRUE(device.has_utilization_percent());
  EXPECT_EQ(device.utilization_percent(), 0);
  EXPECT_DOUBLE_EQ(device.watts(), 412.5);
  EXPECT_EQ(device.celsius(), 54);
  ASSERT_TRUE(device.has_joules());
  EXPECT_EQ(device.joules(), 0);
  ASSERT_TRUE(device.has_processes());
  EXPECT_EQ(device.processes().processes_size(), 0);
}

TEST_F(RouterDevices, OneFieldAlone) {
  DeviceSample sample = Sample();
  sample.celsius = 54;
  h_->router->OnDeviceSample(sample);
  const v1::DeviceStatus device = DeviceNow();
  EXPECT_TRUE(device.has_celsius());
  EXPECT_FALSE(device.has_utilization_percent() || device.has_watts() || device.has_joules() ||
               device.has_processes());
}

TEST_F(RouterDevices, ProcessesAreOursOrStrangers) {
  DeviceSample sample = Sample();
  sample.processes = {{{PidOf("b"), 90 * kMiB}, {PidOf("a"), std::nullopt}, {77, 5 * kMiB}}};
  h_->router->OnDeviceSample(sample);
  const v1::DeviceStatus device = DeviceNow();
  ASSERT_EQ(device.processes().processes_size(), 3);
  const auto& list = device.processes().processes();
  EXPECT_EQ(list[0].model(), "b");
  EXPECT_EQ(list[0].pid(), PidOf("b"));
  EXPECT_EQ(list[0].bytes(), 90 * kMiB);
  EXPECT_EQ(list[1].model(), "a");
  EXPECT_FALSE(list[1].has_bytes());
  EXPECT_EQ(list[2].model(), "");
  EXPECT_EQ(list[2].pid(), 77);
}

TEST_F(RouterDevices, WhatIsOldSaysNothingOfNow) {
  DeviceSample sample = Sample();
  sample.milliwatts = 100'000;
  h_->router->OnDeviceSample(sample);
  h_->RunFor(4 * kSecond);
  EXPECT_TRUE(DeviceNow().has_watts());
  h_->RunFor(2 * kSecond);
  EXPECT_FALSE(DeviceNow().has_watts());
  EXPECT_TRUE(DeviceNow().has_joules()) << "what it has used, it has used";
}

TEST_F(RouterDevices, EnergyIsOfWhoRanSteps) {
  Used(1000);
  EXPECT_EQ(Model("a").joules(), 0);
  EXPECT_TRUE(Model("a").has_joules());
  Answer("a", 10);
  EXPECT_FALSE(Model("a").has_joules_per_token()) << "its energy is not known yet";
  Used(1050);
  EXPECT_DOUBLE_EQ(Model("a").joules(), 50);
  EXPECT_DOUBLE_EQ(Model("a").joules_per_token(), 5);
  EXPECT_EQ(Model("a").tokens(), 10u);
  EXPECT_EQ(Model("a").prompt_tokens(), 3u);
  EXPECT_TRUE(Model("b").has_joules());
  EXPECT_EQ(Model("b").joules(), 0);
  EXPECT_FALSE(Model("b").has_joules_per_token());
  Used(1200);
  EXPECT_DOUBLE_EQ(Model("a").joules(), 50) << "it did nothing since";
  EXPECT_DOUBLE_EQ(DeviceNow().joules(), 200) << "and the card's is told whole";
}

TEST_F(RouterDevices, EnergyIsSharedByTheTimeOfSteps) {
  Answer("a", 1);
  Answer("b", 1);
  Used(0);
  Used(1);
  const Nanos a = h_->world.WorkerOf("a")->busy(), b = h_->world.WorkerOf("b")->busy();
  const double before = Model("a").joules() + Model("b").joules();
  const double had_a = Model("a").joules();
  Answer("a", 50);
  Answer("b", 20);
  Used(101);
  const double more_a = static_cast<double>(h_->world.WorkerOf("a")->busy() - a);
  const double more_b = static_cast<double>(h_->world.WorkerOf("b")->busy() - b);
  ASSERT_GT(more_b, 0);
  ASSERT_GT(more_a, more_b);
  EXPECT_NEAR(Model("a").joules() - had_a, 100 * more_a / (more_a + more_b), 1e-9);
  EXPECT_NEAR(Model("a").joules() + Model("b").joules() - before, 100, 1e-9);
}

TEST_F(RouterDevices, AWorkerThatDiesTakesNothingAway) {
  Used(0);
  Answer("a", 10);
  h_->RunFor(kSecond);
  const Nanos told = h_->world.WorkerOf("a")->busy();
  ASSERT_GT(told, 0);
  h_->world.WorkerOf("a")->Die("killed");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.WorkerOf("a") == nullptr; }));
  Used(40);
  EXPECT_DOUBLE_EQ(Model("a").joules(), 40);
  Answer("a", 1);  // of the next worker, whose time starts afresh
  EXPECT_LT(h_->world.WorkerOf("a")->busy(), told);
  Used(60);
  EXPECT_DOUBLE_EQ(Model("a").joules(), 60);
}

TEST_F(RouterDevices, AWorkerThatHangsHoldsUpNothingForLong) {
  Answer("a", 1);
  Used(0);
  h_->world.WorkerOf("b")->Hang();
  h_->RunFor(kSecond);
  Answer("a", 10);
  Used(30);
  EXPECT_DOUBLE_EQ(Model("a").joules(), 0) << "b has not been heard";
  h_->RunFor(6 * kSecond);  // it is killed
  Used(40);
  EXPECT_DOUBLE_EQ(Model("a").joules(), 40);
}

}  // namespace
}  // namespace switchyard::supervisor
