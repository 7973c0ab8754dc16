#include "supervisor/configuration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ConfigurationTest : public ::testing::Test {
 protected:
  // What is read of a file that holds `text`.
  Configuration Read(const std::string& text) {
    std::ofstream(file_) << text;
    auto read = ReadConfiguration(file_, flags_);
    EXPECT_TRUE(read.ok()) << read.status();
    return read.value_or(Configuration());
  }

  testing::TempDir dir_;
  const std::string file_ = dir_ / "config.textproto";
  v1::SupervisorConfig flags_;
};

TEST_F(ConfigurationTest, WhatDiffersWaitsForARestartByItsName) {
  const Configuration now =
      Read("queue_limit: 7 devices: 'cpu=1GiB' probe_interval { seconds: 5 }");
  EXPECT_THAT(WaitsForRestart(now, now), IsEmpty());
  EXPECT_THAT(WaitsForRestart(now, Read("queue_limit: 8 listen: '127.0.0.1:1' prefetch_at_start: "
                                        "true devices: 'cpu=2GiB' devices: 'GPU-1'")),
              ElementsAre("listen", "queue_limit", "probe_interval", "prefetch_at_start"));
}

TEST_F(ConfigurationTest, ADefaultThatIsWrittenDownDiffersFromNothing) {
  const Configuration now = Read("");
  EXPECT_THAT(WaitsForRestart(now, Read("listen: '127.0.0.1:7411' cache_size: '64GiB'")),
              IsEmpty());
}

TEST_F(ConfigurationTest, WhereFlagsWinTheFileMaySayWhatItLikes) {
  flags_.set_host_memory("1GiB");
  flags_.add_devices("cpu=1GiB");
  const Configuration now = Read("host_memory: '2GiB'");
  const Configuration read = Read("host_memory: '3GiB' devices: 'cpu=5GiB' devices: 'cpu=6GiB'");
  EXPECT_THAT(WaitsForRestart(now, read), IsEmpty());
  EXPECT_THAT(read.config.devices(), ElementsAre("cpu=1GiB"));
}

TEST_F(ConfigurationTest, AFileThatHoldsSomethingElseWaitsToo) {
  Configuration now = Read("");
  now.credentials = {"certificate", "key", "token"};
  Configuration read = now;
  EXPECT_THAT(WaitsForRestart(now, read), IsEmpty());
  read.credentials = {"renewed", "key", "another"};
  EXPECT_THAT(WaitsForRestart(now, read), ElementsAre("tls_certificate", "token_file"));
  read.credentials = {"certificate", "another", "token"};
  EXPECT_THAT(WaitsForRestart(now, read), ElementsAre("tls_key"));
}

TEST_F(ConfigurationTest, WhatNoSupervisorStartsWithIsRefused) {
  for (const char* bad : {"request_memory: '1KiB'", "listen: '0.0.0.0:1'", "listen: 'x'",
                          "tls_key: 'k'", "queue_limit: 99999999", "nonsense: 1"}) {
    std::ofstream(file_) << bad;
    EXPECT_EQ(ReadConfiguration(file_, flags_).status().code(), absl::StatusCode::kInvalidArgument)
        << bad;
  }
  EXPECT_FALSE(ReadConfiguration(dir_ / "none", flags_).ok());
}

}  // namespace
}  // namespace switchyard::supervisor
