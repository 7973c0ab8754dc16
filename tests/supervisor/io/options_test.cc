#include "supervisor/options.h"

#include <gtest/gtest.h>

#include <fstream>
#include <initializer_list>
#include <vector>

#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

struct Parsed {
  bool ok = false;
  Options options;
  EarlyExit exit;
};

Parsed Parse(std::initializer_list<std::string> words) {
  std::vector<std::string> storage = {"switchyard-supervisor"};
  storage.insert(storage.end(), words);
  std::vector<char*> argv;
  for (std::string& word : storage) argv.push_back(word.data());
  Parsed parsed;
  parsed.ok =
      ParseOptions(static_cast<int>(argv.size()), argv.data(), &parsed.options, &parsed.exit);
  return parsed;
}

TEST(Options, Defaults) {
  const Parsed parsed = Parse({"--models-dir", "m"});
  ASSERT_TRUE(parsed.ok) << parsed.exit.text;
  EXPECT_EQ(parsed.options.models_dir, "m");
  EXPECT_EQ(FormatHostPort(parsed.options.listen), "127.0.0.1:7411");
  EXPECT_FALSE(parsed.options.state_dir.empty());
  EXPECT_FALSE(parsed.options.state_dir_is_temporary);
  EXPECT_FALSE(parsed.options.cache_dir.empty());
  EXPECT_EQ(parsed.options.config.devices_size(), 0);
  EXPECT_EQ(parsed.options.config.request_memory(), "512MiB");
}

TEST(Options, RequestMemoryIsASize) {
  const Parsed parsed = Parse({"--models-dir", "m", "--request-memory", "1GiB"});
  ASSERT_TRUE(parsed.ok) << parsed.exit.text;
  EXPECT_EQ(parsed.options.config.request_memory(), "1GiB");
  EXPECT_EQ(Parse({"--models-dir", "m", "--request-memory", "much"}).exit.code, 2);
}

TEST(Options, WrongUsageIsSignedByWhoWasAsked) {
  const Parsed unknown = Parse({"--models-dir", "m", "--foo"});
  EXPECT_EQ(unknown.exit.code, 2);
  EXPECT_EQ(unknown.exit.text.find("switchyard-supervisor: "), 0u) << unknown.exit.text;
  EXPECT_NE(unknown.exit.text.find("--foo\nTry: switchyard-supervisor --help\n"), std::string::npos)
      << unknown.exit.text;
  const Parsed check = Parse({"--check", "--models-dir", "m", "--host-memory", "much"});
  EXPECT_EQ(check.exit.text.find("switchyard: host_memory: "), 0u) << check.exit.text;
}

TEST(Options, RequestMemoryHasRoomForARequest) {
  testing::TempDir directory;
  const std::string file = directory / "config.textproto";
  std::ofstream(file) << R"(request_memory: "1KiB")";
  for (const Parsed& parsed : {Parse({"--models-dir", "m", "--request-memory", "0"}),
                               Parse({"--models-dir", "m", "--request-memory", "1KiB"}),
                               Parse({"--models-dir", "m", "--request-memory", "262143"}),
                               Parse({"--models-dir", "m", "--config", file})}) {
    EXPECT_EQ(parsed.exit.code, 2);
    EXPECT_NE(parsed.exit.text.find("is less than 256.0"), std::string::npos) << parsed.exit.text;
  }
  EXPECT_TRUE(Parse({"--models-dir", "m", "--request-memory", "256KiB"}).ok);
  EXPECT_TRUE(Parse({"--models-dir", "m", "--config", file, "--request-memory", "1MiB"}).ok);
}

TEST(Options, ASizeThatIsNoneIsTheNamedOptions) {
  const Parsed parsed = Parse({"--models-dir", "m", "--cache-size", "much"});
  EXPECT_NE(parsed.exit.text.find("cache_size: \"much\""), std::string::npos) << parsed.exit.text;
}

TEST(Options, FlagsWinOverTheFile) {
  testing::TempDir directory;
  const std::string path = directory / "config.textproto";
  std::ofstream(path) << R"(listen: "127.0.0.1:1" host_memory: "1GiB" devices: "cpu=1GiB"
                            queue_limit: 7)";
  const Parsed parsed = Parse(
      {"--models-dir", "m", "--config", path, "--listen", "127.0.0.1:2", "--device", "cpu=2GiB"});
  ASSERT_TRUE(parsed.ok) << parsed.exit.text;
  EXPECT_EQ(parsed.options.listen.port, 2);
  EXPECT_EQ(parsed.options.config.host_memory(), "1GiB");
  EXPECT_EQ(parsed.options.config.queue_limit(), 7u);
  ASSERT_EQ(parsed.options.config.devices_size(), 1);
  EXPECT_EQ(parsed.options.config.devices(0), "cpu=2GiB");
}

TEST(Options, PortZeroHasATemporaryStateDirUnlessOneIsGiven) {
  EXPECT_TRUE(
      Parse({"--models-dir", "m", "--listen", "127.0.0.1:0"}).options.state_dir_is_temporary);
  const Parsed given = Parse({"--models-dir", "m", "--listen", "127.0.0.1:0", "--state-dir", "s"});
  EXPECT_FALSE(given.options.state_dir_is_temporary);
  EXPECT_EQ(given.options.state_dir, "s");
}

TEST(Options, WrongUsageExitsWithTwo) {
  testing::TempDir directory;
  const std::string bad = directory / "bad.textproto";
  std::ofstream(bad) << "lisen: \"x\"";
  for (const Parsed& parsed : {Parse({}), Parse({"--models-dir", "m", "--nonsense"}),
                               Parse({"--models-dir", "m", "--listen", "x"}),
                               Parse({"--models-dir", "m", "--listen", "0.0.0.0:1"}),
                               Parse({"--models-dir", "m", "--host-memory", "lots"}),
                               Parse({"--models-dir", "m", "--device", "cpu=lots"}),
                               Parse({"--models-dir", "m", "--config", "/nonexistent"}),
                               Parse({"--models-dir", "m", "--config", bad})}) {
    EXPECT_FALSE(parsed.ok);
    EXPECT_EQ(parsed.exit.code, 2);
    EXPECT_FALSE(parsed.exit.text.empty());
  }
}

// Whoever gives an option of another command is not helped by one more of this one.
TEST(Options, WhatHelpsMostIsSaidFirst) {
  const auto complaint = [](std::initializer_list<std::string> words) {
    const Parsed parsed = Parse(words);
    EXPECT_EQ(parsed.exit.code, 2);
    return parsed.exit.text;
  };
  const std::string other = complaint({"--other-machine"});
  EXPECT_NE(other.find("`switchyard check`"), std::string::npos) << other;
  EXPECT_EQ(other, complaint({"--models-dir", "m", "--other-machine"}));
  for (const std::string& text : {complaint({}), complaint({"--models-dir", ""}),
                                  complaint({"--check", "--other-machine"})}) {
    EXPECT_NE(text.find("--models-dir is required"), std::string::npos) << text;
  }
  EXPECT_NE(Parse({"--help"}).exit.text.find("--models-dir TEXT REQUIRED"), std::string::npos);
}

TEST(Options, TlsIsAllOrNothing) {
  testing::TempDir directory;
  const std::string config = directory / "config.textproto";
  std::ofstream(config) << R"(tls_key: "k")";
  for (const Parsed& parsed : {Parse({"--models-dir", "m", "--token-file", "t"}),
                               Parse({"--models-dir", "m", "--config", config})}) {
    EXPECT_EQ(parsed.exit.code, 2);
    EXPECT_NE(parsed.exit.text.find("go together"), std::string::npos) << parsed.exit.text;
  }
  const Parsed missing = Parse({"--models-dir", "m", "--tls-certificate", "/nonexistent",
                                "--tls-key", "k", "--token-file", "t"});
  EXPECT_EQ(missing.exit.code, 2);
  EXPECT_NE(missing.exit.text.find("/nonexistent"), std::string::npos) << missing.exit.text;
}

TEST(Options, TheSandboxIsOnUnlessToldOtherwise) {
  EXPECT_FALSE(Parse({"--models-dir", "m"}).options.config.no_sandbox());
  EXPECT_TRUE(Parse({"--models-dir", "m", "--no-sandbox"}).options.config.no_sandbox());
}

TEST(Options, HelpAndVersionExitWithZero) {
  EXPECT_EQ(Parse({"--help"}).exit.code, 0);
  EXPECT_EQ(Parse({"--version"}).exit.code, 0);
  EXPECT_EQ(Parse({"--help"}).exit.text.find("--check"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::supervisor
