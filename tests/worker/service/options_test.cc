#include "worker/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/usable_cores.h"

namespace switchyard::worker {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Options> Parse(std::vector<const char*> args) {
  args.insert(args.begin(), "switchyard-worker");
  return ParseOptions(static_cast<int>(args.size()), args.data());
}

TEST(Options, Serve) {
  auto options = Parse({"--serve", "--model-text", "name: 'a' checkpoint: '/c'", "--device", "cpu",
                        "--cache-dir", "/d", "--cache-bytes", "99", "--threads", "3",
                        "--supervisor-pid", "17"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->mode, Mode::kServe);
  EXPECT_EQ(options->model.name(), "a");
  EXPECT_EQ(options->cache_dir, "/d");
  EXPECT_EQ(options->cache_bytes, 99u);
  EXPECT_EQ(options->threads, 3);
  EXPECT_EQ(options->supervisor_pid, 17);
}

TEST(Options, PlanMayNeedWeights) {
  const char* model = "name: 'a' checkpoint: '/c'";
  auto options = Parse({"--plan", "--model-text", model});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_FALSE(options->needs_weights);
  options = Parse({"--plan", "--needs-weights", "--model-text", model, "--supervisor-pid", "17"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->needs_weights);
  EXPECT_EQ(options->supervisor_pid, 17);
}

TEST(Options, ManyCoresKeepOneForTheConnection) {
  EXPECT_EQ(DefaultThreads(1), 1);
  EXPECT_EQ(DefaultThreads(3), 3);
  EXPECT_EQ(DefaultThreads(4), 3);
  EXPECT_EQ(DefaultThreads(16), 15);
}

TEST(Options, ThreadsFollowTheCoresByDefault) {
  for (const char* threads : {"0", "1", "5"}) {
    auto options =
        Parse({"--plan", "--model-text", "name: 'a' checkpoint: '/c'", "--threads", threads});
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_EQ(options->threads,
              threads[0] == '0' ? DefaultThreads(UsableCores()) : threads[0] - '0');
  }
}

TEST(Options, WrongUsageIsNamed) {
  const char* model = "name: 'a' checkpoint: '/c'";
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{}, "--plan and --serve"},
      {{"--plan", "--serve", "--model-text", model}, "--plan and --serve"},
      {{"--plan"}, "--model-text"},
      {{"--plan", "--model-text"}, "no value follows"},
      {{"--plan", "--model-text", "nam: 'a'"}, "column 4"},
      {{"--plan", "--model-text", "name: 'a'"}, "checkpoint"},
      {{"--plan", "--model-text", model, "--threads", "-1"}, "not a count"},
      {{"--plan", "--model-text", model, "--what", "1"}, "--what"},
      {{"--plan", "--model-text", model, "--what"}, "--what"},
  };
  for (const auto& [args, word] : cases) {
    auto options = Parse(args);
    ASSERT_FALSE(options.ok()) << word;
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(word));
  }
}

}  // namespace
}  // namespace switchyard::worker
