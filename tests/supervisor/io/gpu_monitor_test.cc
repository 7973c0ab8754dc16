#include "supervisor/gpu_monitor.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

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

TEST(Nvml, ReadsWhatTheDriverSays) {
  SetUsed(2 * kGiB);
  auto nvml = Nvml::Open(FAKE_NVML);
  ASSERT_TRUE(nvml.ok()) << nvml.status();
  auto gpus = (*nvml)->Gpus();
  ASSERT_TRUE(gpus.ok()) << gpus.status();
  ASSERT_EQ(gpus->size(), 1u);
  EXPECT_EQ((*gpus)[0].uuid, "GPU-fake");
  EXPECT_EQ((*gpus)[0].total_bytes, 8 * kGiB);
  EXPECT_EQ((*gpus)[0].driver_bytes, 1 * kGiB);
  EXPECT_EQ((*gpus)[0].used_bytes, 2 * kGiB);
  EXPECT_EQ((*gpus)[0].capability, 120);
  ::unsetenv("FAKE_NVML_USED");
  EXPECT_FALSE((*nvml)->Gpus().ok());
  EXPECT_EQ(Nvml::Open("libnothing-of-this-name.so").status().code(), absl::StatusCode::kNotFound);
}

// A monitor whose ledger is the test's; runs the loop until the test has heard enough.
class GpuMonitorTest : public ::testing::Test {
 protected:
  void Run() {
    auto nvml = Nvml::Open(FAKE_NVML);
    ASSERT_TRUE(nvml.ok()) << nvml.status();
    GpuMonitor monitor(&loop_, *std::move(nvml), {{"cpu", kGiB, 0}, {"GPU-fake", 7 * kGiB, 0}},
                       {[this](const std::string& device) { return settled(device); },
                        [this](const std::string& device, uint64_t bytes) {
                          EXPECT_EQ(device, "GPU-fake");
                          heard_.push_back(bytes);
                          on_heard();
                        }});
    monitor.Start();
    loop_.Run();
  }
  EventLoop loop_;
  std::vector<uint64_t> heard_;
  std::function<std::optional<uint64_t>(const std::string&)> settled = [](const std::string&) {
    return std::optional<uint64_t>(kGiB);
  };
  std::function<void()> on_heard = [this] { loop_.Stop(); };
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

TEST_F(GpuMonitorTest, ASampleDuringAMotionDoesNotCount) {
  SetUsed(3 * kGiB);
  int asked = 0;
  settled = [&](const std::string& device) -> std::optional<uint64_t> {
    if (device == "cpu") return 0;
    ++asked;
    if (asked == 1) return std::nullopt;  // in motion before the first sample, at rest after it
    if (asked <= 3) return kGiB;          // the second sample begins with another holding
    return 2 * kGiB;
  };
  Run();
  EXPECT_EQ(heard_, (std::vector<uint64_t>{kGiB})) << "only what was the same before and after";
  EXPECT_EQ(asked, 6);
}

}  // namespace
}  // namespace switchyard::supervisor
