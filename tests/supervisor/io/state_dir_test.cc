#include "supervisor/state_dir.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

TEST(StateDir, TheSecondIsRefusedWithTheFirstsPid) {
  testing::TempDir directory;
  const std::string path = directory / "a/b";
  auto first = StateDir::Lock(path, false);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = StateDir::Lock(path, false);
  EXPECT_TRUE(absl::IsAlreadyExists(second.status()));
  EXPECT_NE(second.status().message().find(std::to_string(::getpid())), absl::string_view::npos);
  first->reset();
  EXPECT_TRUE(StateDir::Lock(path, false).ok());
}

TEST(StateDir, WhatItMadeItRemoves) {
  testing::TempDir directory;
  const std::string path = directory / "state";
  ASSERT_TRUE(StateDir::Lock(path, false).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  // But not a directory that was there, nor what else is in one.
  std::filesystem::create_directory(path);
  ASSERT_TRUE(StateDir::Lock(path, false).ok());
  EXPECT_TRUE(std::filesystem::is_empty(path));
  std::filesystem::remove(path);
  auto locked = StateDir::Lock(path, false);
  ASSERT_TRUE(locked.ok());
  std::ofstream(path + "/notes") << "mine";
  locked->reset();
  EXPECT_TRUE(std::filesystem::exists(path + "/notes"));
  EXPECT_FALSE(std::filesystem::exists(path + "/lock"));
}

// Whoever had the lock file open when it was removed must not take its lock for the one that
// counts.
class StateDirRace : public ::testing::TestWithParam<bool> {};

TEST_P(StateDirRace, NeverTwoHoldersWhileOthersComeAndGo) {
  testing::TempDir directory;
  const std::string path = directory / "state";
  const bool temporary = GetParam();
  std::atomic<int> holders = 0, most = 0, times = 0;
  auto come_and_go = [&] {
    for (int i = 0; i < 3000; ++i) {
      auto locked = StateDir::Lock(path, temporary);
      if (!locked.ok()) {
        EXPECT_TRUE(absl::IsAlreadyExists(locked.status())) << locked.status();
        continue;
      }
      const int now = ++holders;
      if (now > most) most = now;
      EXPECT_TRUE(std::filesystem::exists(path + "/lock"));
      ++times;
      --holders;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(come_and_go);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(most, 1);
  EXPECT_GT(times, 1);
  EXPECT_FALSE(std::filesystem::exists(path + "/lock"));
}
INSTANTIATE_TEST_SUITE_P(TemporaryOrNot, StateDirRace, ::testing::Bool());

TEST(StateDir, ATemporaryOneLeavesNothing) {
  testing::TempDir directory;
  const std::string path = directory / "state";
  ASSERT_TRUE(StateDir::Lock(path, true).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(StateDir, ATemporaryOneIsOursAlone) {
  testing::TempDir directory;
  const std::string elsewhere = directory / "elsewhere", link = directory / "link";
  std::filesystem::create_directory(elsewhere);
  std::filesystem::create_directory_symlink(elsewhere, link);
  EXPECT_TRUE(absl::IsFailedPrecondition(StateDir::Lock(link, true).status()));
  std::filesystem::permissions(elsewhere, std::filesystem::perms::all);
  EXPECT_TRUE(absl::IsFailedPrecondition(StateDir::Lock(elsewhere, true).status()));
  EXPECT_TRUE(std::filesystem::is_empty(elsewhere));
  std::filesystem::permissions(elsewhere, std::filesystem::perms::owner_all);
  EXPECT_TRUE(StateDir::Lock(elsewhere, true).ok());
}

TEST(StateDir, DefaultsAreOnePerAddress) {
  ::setenv("XDG_STATE_HOME", "/x", 1);
  EXPECT_EQ(*DefaultStateDir({"127.0.0.1", 7411}), "/x/switchyard/127.0.0.1_7411");
  ::unsetenv("XDG_STATE_HOME");
  ::setenv("HOME", "/h", 1);
  EXPECT_EQ(*DefaultStateDir({"127.0.0.1", 1}), "/h/.local/state/switchyard/127.0.0.1_1");
  ::setenv("XDG_RUNTIME_DIR", "/r", 1);
  EXPECT_EQ(*DefaultStateDir({"127.0.0.1", 0}), "/r/switchyard-" + std::to_string(::getpid()));
}

// Not /tmp: whoever was there first would own the socket's directory, and the images that are read.
TEST(StateDir, WithoutAHomeThereIsNoDefault) {
  for (const char* name : {"HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"}) ::unsetenv(name);
  const absl::Status state = DefaultStateDir({"127.0.0.1", 1}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(state));
  EXPECT_NE(state.message().find("--state-dir"), absl::string_view::npos);
  EXPECT_NE(DefaultCacheDir().status().message().find("--cache-dir"), absl::string_view::npos);
  ::setenv("XDG_CACHE_HOME", "/c", 1);
  EXPECT_EQ(*DefaultCacheDir(), "/c/switchyard");
  ::setenv("HOME", "/h", 1);
  EXPECT_TRUE(DefaultStateDir({"127.0.0.1", 1}).ok());
}

}  // namespace
}  // namespace switchyard::supervisor
