#include "supervisor/gpu_monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "common/log.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(ForeignBytes, StrangersTakeFirstWhatIsNotLeased) {
  const Gpu gpu{"GPU-1", "a GPU", 8 * kGiB, 1 * kGiB, 3 * kGiB};
  EXPECT_EQ(ForeignBytes(gpu, 7 * kGiB, 0), 3 * kGiB) << "all of it is ours to lease";
  EXPECT_EQ(ForeignBytes(gpu, 7 * kGiB, 2 * kGiB), 1 * kGiB);
  EXPECT_EQ(ForeignBytes(gpu, 7 * kGiB, 3 * kGiB), 0u);
  EXPECT_EQ(ForeignBytes(gpu, 7 * kGiB, 4 * kGiB), 0u) << "leased and not used yet";
  EXPECT_EQ(ForeignBytes(gpu, 5 * kGiB, 0), 1 * kGiB) << "two are not ours anyway";
  EXPECT_EQ(ForeignBytes(gpu, 2 * kGiB, 0), 0u);
}

void SetUsed(uint64_t bytes) { ::setenv("FAKE_NVML_USED", std::to_string(bytes).c_str(), 1); }

// A monitor whose listener is the test; runs the loop until the test has heard enough.
class GpuMonitorTest : public ::testing::Test {
 protected:
  void Run() {
    auto nvml = Nvml::Open(FAKE_NVML);
    ASSERT_TRUE(nvml.ok()) << nvml.status();
    GpuMonitor monitor(&loop_, *std::move(nvml), {{"cpu", kGiB, 0}, {"GPU-fake", 7 * kGiB, 0}},
                       {[this](const std::string& device) { return ours(device); },
                        [this](const std::string& device, uint64_t bytes) {
                          EXPECT_EQ(device, "GPU-fake");
                          heard_.push_back(bytes);
                          on_heard();
                        },
                        [this](const std::string& device, uint64_t least, uint64_t most) {
                          EXPECT_EQ(device, "GPU-fake");
                          between_.push_back({least, most});
                        },
                        [this](DeviceSample sample) {
                          EXPECT_EQ(sample.device, "GPU-fake");
                          samples_.push_back(std::move(sample));
                          on_sample();
                        }});
    monitor_ = &monitor;
    monitor.Start();
    loop_.Run();
  }
  std::string LogOfRun() {
    InitLog("test");
    ::testing::internal::CaptureStderr();
    Run();
    return ::testing::internal::GetCapturedStderr();
  }
  EventLoop loop_;
  GpuMonitor* monitor_ = nullptr;
  std::vector<uint64_t> heard_;
  std::vector<std::pair<uint64_t, uint64_t>> between_;
  std::vector<DeviceSample> samples_;
  std::function<OurBytes(const std::string&)> ours = [](const std::string&) {
    return OurBytes{7 * kGiB, kGiB, kGiB, kGiB, true};
  };
  std::function<void()> on_heard = [this] { loop_.Stop(); };
  std::function<void()> on_sample = [] {};
};

TEST_F(GpuMonitorTest, TellsOfStrangersAgainAndAgain) {
  SetUsed(3 * kGiB);
  on_heard = [this] {
    SetUsed(1 * kGiB);
    if (heard_.size() == 2) loop_.Stop();
  };
  Run();
  EXPECT_EQ(heard_, (std::vector<uint64_t>{2 * kGiB, 0}));
}

TEST_F(GpuMonitorTest, AsksAtOnceIfAskedTo) {
  SetUsed(3 * kGiB);
  constexpr size_t kTimes = 100;
  on_heard = [this] { heard_.size() == kTimes ? loop_.Stop() : monitor_->AskNow(); };
  const Nanos then = loop_.Now();
  Run();
  EXPECT_LT(loop_.Now() - then, kTimes * kSecond / 2) << "no faster than by the timer";
}

TEST_F(GpuMonitorTest, DuringAMotionStrangersLieBetweenTwoBounds) {
  SetUsed(6 * kGiB);
  int asked = 0;
  ours = [&](const std::string& device) -> OurBytes {
    if (device == "cpu") return {};
    ++asked;
    if (asked == 1) return {7 * kGiB, kGiB, 0, 3 * kGiB, false};  // then at rest
    if (asked <= 3) return {7 * kGiB, kGiB, kGiB, kGiB, true};    // the second begins with another
    return {7 * kGiB, 2 * kGiB, 2 * kGiB, 2 * kGiB, true};
  };
  Run();
  const std::vector<std::pair<uint64_t, uint64_t>> expected = {{3 * kGiB, 6 * kGiB},
                                                               {4 * kGiB, 5 * kGiB}};
  EXPECT_EQ(between_, expected);
  EXPECT_EQ(heard_, (std::vector<uint64_t>{4 * kGiB})) << "what was the same before and after";
  EXPECT_EQ(asked, 6);
}

TEST_F(GpuMonitorTest, WhatIsOursToLeaseMayChange) {
  SetUsed(3 * kGiB);
  ours = [](const std::string&) { return OurBytes{5 * kGiB, 0, 0, 0, true}; };
  Run();
  EXPECT_EQ(heard_, (std::vector<uint64_t>{kGiB})) << "two are not ours any more";
}

TEST_F(GpuMonitorTest, TellsWhatTheGpuDoesAgainAndAgain) {
  SetUsed(3 * kGiB);
  ::setenv("FAKE_NVML_ENERGY", "5000", 1);
  ours = [](const std::string&) { return OurBytes(); };  // also while leases are in motion
  on_sample = [this] {
    ::setenv("FAKE_NVML_ENERGY", "7500", 1);
    if (samples_.size() == 2) loop_.Stop();
  };
  Run();
  ASSERT_EQ(samples_.size(), 2u);
  EXPECT_EQ(samples_[0].millijoules, 5000u);
  EXPECT_EQ(samples_[1].millijoules, 7500u);
  EXPECT_EQ(samples_[0].milliwatts, 412500u);
  EXPECT_GT(samples_[0].at, 0);
  EXPECT_GT(samples_[1].at, samples_[0].at);
  EXPECT_TRUE(heard_.empty());
}

TEST_F(GpuMonitorTest, WhatIsUsedMayBeUnknownWhileTheRestIsTold) {
  ::unsetenv("FAKE_NVML_USED");
  ::unsetenv("FAKE_NVML_ENERGY");
  on_sample = [this] { loop_.Stop(); };
  Run();
  ASSERT_EQ(samples_.size(), 1u);
  EXPECT_EQ(samples_[0].celsius, 54);
  EXPECT_TRUE(heard_.empty());
}

TEST_F(GpuMonitorTest, AGpuThatDoesNotAnswerIsToldAsOneThatSaysNothing) {
  ::setenv("FAKE_NVML_REFUSES", "handle,", 1);
  on_sample = [this] { loop_.Stop(); };
  Run();
  ::unsetenv("FAKE_NVML_REFUSES");
  ASSERT_EQ(samples_.size(), 1u);
  EXPECT_FALSE(samples_[0].celsius || samples_[0].milliwatts || samples_[0].millijoules ||
               samples_[0].utilization_percent || samples_[0].processes);
}

// Lost for two samples, and told once; found again, and told once. `cpu` is nothing to ask of.
TEST_F(GpuMonitorTest, SaysWhenSamplesBeginToFailAndWhenTheyWorkAgain) {
  ::unsetenv("FAKE_NVML_USED");
  on_sample = [this] {
    if (samples_.size() == 2) SetUsed(3 * kGiB);
    if (heard_.size() < 2) monitor_->AskNow();
  };
  on_heard = [this] {
    if (heard_.size() == 2) loop_.Stop();
  };
  const std::string log = LogOfRun();
  const auto times = [&](const std::string& text) {
    size_t count = 0;
    for (size_t at = 0; (at = log.find(text, at)) != std::string::npos; ++at) ++count;
    return count;
  };
  EXPECT_EQ(times("device GPU-fake: what others use of it is not known, and counts as it was last: "
                  "reading its memory failed: GPU is lost (NVML error 15)"),
            1u)
      << log;
  EXPECT_EQ(times("device GPU-fake: what others use of it is known again"), 1u) << log;
  EXPECT_EQ(times("what others use of it"), 2u) << log;
}

TEST_F(GpuMonitorTest, OneThatMayNotBeOpenedIsToldByItsIndex) {
  SetUsed(3 * kGiB);
  ::setenv("FAKE_NVML_DENIED", "0", 1);
  on_sample = [this] { loop_.Stop(); };
  EXPECT_THAT(LogOfRun(),
              ::testing::HasSubstr("GPU 0: opening it failed: Insufficient Permissions"));
  ::unsetenv("FAKE_NVML_DENIED");
}

}  // namespace
}  // namespace switchyard::supervisor
