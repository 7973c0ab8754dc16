// The driver's library, as new as it may be and as old, with a card that answers this and not that.

#include "supervisor/nvml.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

class NvmlTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("FAKE_NVML_USED", std::to_string(2 * kGiB).c_str(), 1);
    ::setenv("FAKE_NVML_ENERGY", "123456", 1);
    ::setenv("FAKE_NVML_PROCESSES", "2", 1);
  }
  void TearDown() override {
    for (const char* name : {"USED", "ENERGY", "PROCESSES", "REFUSES", "INIT", "GPUS", "DENIED"}) {
      ::unsetenv((std::string("FAKE_NVML_") + name).c_str());
    }
  }
  // What the driver without `missing` functions says of its one GPU.
  static DeviceSample SampleWithout(const std::string& missing) {
    auto nvml =
        Nvml::Open((std::string(FAKE_NVML_FOLDER "/libfake_nvml_") + missing + ".so").c_str());
    EXPECT_TRUE(nvml.ok()) << nvml.status();
    return nvml.ok() ? SampleOf(**nvml) : DeviceSample();
  }
  static DeviceSample SampleRefusing(const std::string& functions) {
    ::setenv("FAKE_NVML_REFUSES", functions.c_str(), 1);
    auto nvml = Nvml::Open(FAKE_NVML);
    EXPECT_TRUE(nvml.ok()) << nvml.status();
    return nvml.ok() ? SampleOf(**nvml) : DeviceSample();
  }
  static DeviceSample SampleOf(const Nvml& nvml) {
    auto gpus = nvml.Gpus();
    EXPECT_TRUE(gpus.ok() && gpus->size() == 1) << gpus.status();
    const std::vector<DeviceSample> samples = nvml.Samples();
    EXPECT_EQ(samples.size(), 1u);
    return samples.size() == 1 ? samples[0] : DeviceSample();
  }
  // Everything is told but what `without` names.
  static void ExpectAllBut(const DeviceSample& sample, const std::string& without) {
    EXPECT_EQ(sample.device, "GPU-fake");
    const auto told = [&](const char* what) { return without != what && without != "all"; };
    EXPECT_EQ(sample.utilization_percent, told("utilization") ? std::optional(62.0) : std::nullopt);
    EXPECT_EQ(sample.milliwatts, told("power") ? std::optional<uint64_t>(412500) : std::nullopt);
    EXPECT_EQ(sample.celsius, told("temperature") ? std::optional(54.0) : std::nullopt);
    EXPECT_EQ(sample.millijoules, told("energy") ? std::optional<uint64_t>(123456) : std::nullopt);
    ASSERT_EQ(sample.processes.has_value(), told("processes"));
    if (!sample.processes) return;
    ASSERT_EQ(sample.processes->size(), 2u);
    EXPECT_EQ((*sample.processes)[0].pid, 100);
    EXPECT_EQ((*sample.processes)[0].bytes, 100 * kMiB);
    EXPECT_EQ((*sample.processes)[1].pid, 101);
    EXPECT_EQ((*sample.processes)[1].bytes, std::nullopt) << "as in containers";
  }
};

TEST_F(NvmlTest, ReadsWhatTheDriverSays) {
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
  ExpectAllBut(SampleOf(**nvml), "");
  ::unsetenv("FAKE_NVML_USED");
  gpus = (*nvml)->Gpus();
  ASSERT_TRUE(gpus.ok() && gpus->size() == 1) << gpus.status();
  EXPECT_EQ((*gpus)[0].failure,
            absl::UnavailableError("reading its memory failed: GPU is lost (NVML error 15)"));
  EXPECT_EQ((*nvml)->Samples().size(), 1u) << "the rest is still told";
  EXPECT_EQ(Nvml::Open("libnothing-of-this-name.so").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(NvmlTest, OneThatFailsHidesNoOther) {
  ::setenv("FAKE_NVML_GPUS", "3", 1);
  ::setenv("FAKE_NVML_DENIED", "1", 1);
  auto nvml = Nvml::Open(FAKE_NVML);
  ASSERT_TRUE(nvml.ok()) << nvml.status();
  const auto gpus = (*nvml)->Gpus();
  ASSERT_TRUE(gpus.ok() && gpus->size() == 3) << gpus.status();
  EXPECT_EQ((*gpus)[0].failure, absl::OkStatus());
  EXPECT_EQ((*gpus)[1].failure,
            absl::UnavailableError("opening it failed: Insufficient Permissions (NVML error 4)"));
  EXPECT_EQ((*gpus)[2].failure, absl::OkStatus());
  EXPECT_EQ((*gpus)[2].uuid, "GPU-fake-2") << "in its place";
}

TEST_F(NvmlTest, ADriverThatIsThereAndDoesNotOpenSaysWhy) {
  ::setenv("FAKE_NVML_INIT", "18", 1);
  EXPECT_EQ(
      Nvml::Open(FAKE_NVML).status(),
      absl::UnavailableError("nvmlInit failed: Driver/library version mismatch (NVML error 18)"));
  // Not one that is not there.
  EXPECT_EQ(Nvml::Open("/proc/self/exe").status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(NvmlTest, AnOldDriverLacksWhatItLacks) {
  ExpectAllBut(SampleWithout("UTILIZATION"), "utilization");
  ExpectAllBut(SampleWithout("POWER"), "power");
  ExpectAllBut(SampleWithout("TEMPERATURE"), "temperature");
  ExpectAllBut(SampleWithout("ENERGY"), "energy");
  ExpectAllBut(SampleWithout("PROCESSES_V2"), "");
  ExpectAllBut(SampleWithout("PROCESSES_V3"), "");
  ExpectAllBut(SampleWithout("PROCESSES"), "processes");
  ExpectAllBut(SampleWithout("ALL"), "all");
}

TEST_F(NvmlTest, ACardRefusesWhatItRefuses) {
  for (const char* what : {"utilization", "power", "temperature", "energy", "processes"}) {
    SCOPED_TRACE(what);
    ExpectAllBut(SampleRefusing(std::string(what) + ","), what);
  }
  ExpectAllBut(SampleRefusing("utilization,power,temperature,energy,processes,"), "all");
}

TEST_F(NvmlTest, NoProcessIsAnAnswer) {
  ::setenv("FAKE_NVML_PROCESSES", "0", 1);
  const DeviceSample sample = SampleRefusing("");
  ASSERT_TRUE(sample.processes.has_value());
  EXPECT_TRUE(sample.processes->empty());
}

TEST_F(NvmlTest, AsManyProcessesAsThereAre) {
  for (const size_t count : {31, 32, 33, 1000}) {
    ::setenv("FAKE_NVML_PROCESSES", std::to_string(count).c_str(), 1);
    const DeviceSample sample = SampleRefusing("");
    ASSERT_TRUE(sample.processes.has_value()) << count;
    ASSERT_EQ(sample.processes->size(), count);
    EXPECT_EQ(sample.processes->back().pid, static_cast<int32_t>(99 + count));
  }
  ::setenv("FAKE_NVML_PROCESSES", "4000000000", 1);  // no such thing; and no such memory is taken
  EXPECT_FALSE(SampleRefusing("").processes.has_value());
}

TEST_F(NvmlTest, AGpuThatDoesNotAnswerIsLeftOut) {
  ::setenv("FAKE_NVML_REFUSES", "handle,", 1);
  auto nvml = Nvml::Open(FAKE_NVML);
  ASSERT_TRUE(nvml.ok()) << nvml.status();
  EXPECT_TRUE((*nvml)->Samples().empty());
}

}  // namespace
}  // namespace switchyard::supervisor
