#include "supervisor/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/log.h"

namespace switchyard::supervisor {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kGiB = uint64_t{1} << 30;

using FoundGpus = absl::StatusOr<std::vector<Gpu>>;

Gpu Good(const char* uuid) { return {uuid, "a GPU", 8 * kGiB, kGiB, 0, 120}; }

// The first may not be opened, the third is lost.
FoundGpus TwoOfFourFail() {
  std::vector<Gpu> gpus = {{}, Good("GPU-1"), {}, Good("GPU-3")};
  gpus[0].failure = absl::UnavailableError("opening it failed: Insufficient Permissions");
  gpus[2].uuid = "GPU-2";
  gpus[2].failure = absl::UnavailableError("reading its memory failed: GPU is lost");
  return gpus;
}

// The devices' names, what was logged on the way, or the error.
struct Found {
  std::vector<std::string> devices;
  std::string log, error;
};

Found Find(const std::vector<std::string>& devices, const FoundGpus& gpus) {
  Found found;
  InitLog("test");
  ::testing::internal::CaptureStderr();
  const auto budget = FindBudget(devices, "", std::nullopt, gpus);
  found.log = ::testing::internal::GetCapturedStderr();
  if (!budget.ok()) {
    EXPECT_TRUE(absl::IsInvalidArgument(budget.status()));
    found.error = std::string(budget.status().message());
    return found;
  }
  for (const Device& device : budget->devices) found.devices.push_back(device.name);
  return found;
}

using Names = std::vector<std::string>;

TEST(Devices, AGpuThatFailsIsLeftOutWithAWarning) {
  const Found found = Find({}, TwoOfFourFail());
  EXPECT_EQ(found.devices, (Names{"GPU-1", "GPU-3"}));
  EXPECT_THAT(found.log, HasSubstr("GPU 0 does not answer: opening it failed: Insufficient "
                                   "Permissions; it is left alone"));
  EXPECT_THAT(found.log, HasSubstr("GPU 2 (GPU-2) does not answer: reading its memory failed: GPU "
                                   "is lost; it is left alone"));
}

TEST(Devices, AnIndexIsTheDrivers) {
  EXPECT_EQ(Find({"1"}, TwoOfFourFail()).devices, (Names{"GPU-1"}));
  EXPECT_EQ(Find({"3"}, TwoOfFourFail()).devices, (Names{"GPU-3"}));
  EXPECT_EQ(Find({"a GPU"}, TwoOfFourFail()).devices, (Names{"GPU-1"}));
}

TEST(Devices, ANamedGpuThatFailsSaysWhy) {
  EXPECT_EQ(Find({"0"}, TwoOfFourFail()).error,
            "GPU 0 does not answer: opening it failed: Insufficient Permissions");
  EXPECT_EQ(Find({"GPU-2"}, TwoOfFourFail()).error,
            "GPU 2 (GPU-2) does not answer: reading its memory failed: GPU is lost");
  EXPECT_THAT(Find({"GPU-0"}, TwoOfFourFail()).error,
              HasSubstr("there is no device \"GPU-0\": 4 GPUs were found, and cpu; GPU 0 does not "
                        "answer: opening it failed"));
  EXPECT_THAT(Find({"GPU-1"}, TwoOfFourFail()).log, IsEmpty()) << "nobody asked for the others";
}

TEST(Devices, ADriverThatDoesNotOpenIsNoMachineWithoutAGpu) {
  const FoundGpus mismatch =
      absl::UnavailableError("nvmlInit failed: Driver/library version mismatch (NVML error 18)");
  const Found found = Find({}, mismatch);
  EXPECT_EQ(found.devices, (Names{"cpu"}));
  EXPECT_THAT(found.log, HasSubstr("no GPU is used: nvmlInit failed: Driver/library version "
                                   "mismatch (NVML error 18)"));
  EXPECT_EQ(
      Find({"0"}, mismatch).error,
      "there is no device \"0\": nvmlInit failed: Driver/library version mismatch (NVML error "
      "18), only cpu");
  EXPECT_THAT(Find({"cpu=1GiB"}, mismatch).log, IsEmpty());
}

TEST(Devices, AMachineWithoutADriverSaysNothing) {
  for (const absl::Status& status :
       {absl::NotFoundError("there is no NVIDIA driver here"),
        absl::FailedPreconditionError("this build has no CUDA kernels")}) {
    const Found found = Find({}, status);
    EXPECT_EQ(found.devices, (Names{"cpu"}));
    EXPECT_THAT(found.log, IsEmpty());
    EXPECT_THAT(Find({"0"}, status).error, HasSubstr(std::string(status.message())));
  }
}

}  // namespace
}  // namespace switchyard::supervisor
