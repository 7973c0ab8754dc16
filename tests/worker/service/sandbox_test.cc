#include "worker/sandbox.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_dir.h"
#include "worker/model/image_cache.h"

namespace switchyard::worker {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

TEST(Landlock, AsksForNoMoreThanTheKernelKnows) {
  EXPECT_EQ(HandledRights(0).files, 0u);
  EXPECT_EQ(HandledRights(1).files, 0x1fffu);
  EXPECT_EQ(HandledRights(1).network, 0u);
  EXPECT_EQ(HandledRights(2).files, 0x3fffu);
  EXPECT_EQ(HandledRights(3).files, 0x7fffu);
  EXPECT_EQ(HandledRights(4).network, 3u);
  EXPECT_EQ(HandledRights(5).files, 0xffffu);
  EXPECT_EQ(HandledRights(5).scopes, 0u);
  EXPECT_EQ(HandledRights(6).scopes, 3u);
  EXPECT_EQ(HandledRights(99).files, HandledRights(5).files);  // what is newer is not ours to name
}

TEST(Landlock, AllowsAFileOnlyWhatFilesHave) {
  EXPECT_EQ(AllowedRights(PathUse::kRead, true, 7), 0xcu);
  EXPECT_EQ(AllowedRights(PathUse::kRead, false, 7), 0x4u);
  EXPECT_EQ(AllowedRights(PathUse::kDevice, false, 7), 0x8006u);
  EXPECT_EQ(AllowedRights(PathUse::kDevice, false, 4), 0x6u);  // no ioctl to forbid
  EXPECT_EQ(AllowedRights(PathUse::kOwn, true, 7), 0x400eu);
  EXPECT_EQ(AllowedRights(PathUse::kOwn, true, 2), 0xeu);      // nothing to truncate by
  EXPECT_EQ(AllowedRights(PathUse::kKeep, true, 7), 0x41beu);  // nothing is run
  for (int abi = 1; abi < 9; ++abi) {
    EXPECT_EQ(AllowedRights(PathUse::kKeep, true, abi) & ~HandledRights(abi).files, 0u) << abi;
  }
}

TEST(Sandbox, FollowsTheLinksOfACheckpoint) {
  testing::TempDir directory;
  const fs::path root = fs::canonical(directory.path());
  fs::create_directories(root / "blobs");
  fs::create_directories(root / "snapshot");
  std::ofstream(root / "blobs/weights") << "x";
  fs::create_symlink("../blobs/weights", root / "snapshot/model.safetensors");
  fs::create_symlink("../blobs/gone", root / "snapshot/config.json");
  fs::create_symlink("../blobs", root / "snapshot/directory");
  const auto rules = SandboxRules({.checkpoint = (root / "snapshot").string()});
  EXPECT_THAT(rules, Contains(PathRule{(root / "snapshot").string(), PathUse::kRead, true}));
  EXPECT_THAT(rules, Contains(PathRule{(root / "blobs/weights").string(), PathUse::kRead}));
  EXPECT_THAT(rules, Not(Contains(PathRule{(root / "blobs").string(), PathUse::kRead})));
}

TEST(Sandbox, OpensNoMoreThanIsNeeded) {
  const auto rules =
      SandboxRules({.checkpoint = "/models/x", .cache_dir = "/cache", .library_path = "/a::/b"});
  EXPECT_THAT(rules, Contains(PathRule{"/a", PathUse::kRead}));
  EXPECT_THAT(rules, Contains(PathRule{"/b", PathUse::kRead}));
  for (const PathRule& rule : rules) {
    EXPECT_NE(rule.path, "/");
    EXPECT_NE(rule.path, "/etc");
    EXPECT_NE(rule.path, "/dev");
    EXPECT_EQ(rule.use == PathUse::kKeep, rule.path == "/cache") << rule.path;
  }
}

TEST(Sandbox, LibrariesMayBeWhereLinksLead) {
  const auto rules = SandboxRules({});
  for (const char* path : {"/usr/local/cuda", "/nix/store", "/run/opengl-driver"}) {
    EXPECT_THAT(rules, Contains(PathRule{path, PathUse::kRead}));
  }
}

// Runs `body` in a child process; its result is 0 to 255.
int InChild(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int ErrorOfOpening(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags, 0600);
  return fd < 0 ? errno : 0;
}

class ConfineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!LandlockVersion().ok()) GTEST_SKIP() << LandlockVersion().status();
    for (const char* name : {"read", "keep", "other", "linked"}) {
      fs::create_directory(directory_ / name);
      std::ofstream(directory_ / name + "/file") << "x";
    }
    fs::create_symlink(directory_ / "linked", directory_ / "link");
  }
  // What opening `path` is answered when the rules are in force.
  int Answer(const std::string& path, int flags) {
    return InChild([&] {
      ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      const std::vector<PathRule> rules = {{directory_ / "read", PathUse::kRead},
                                           {directory_ / "keep", PathUse::kKeep},
                                           {directory_ / "link", PathUse::kRead},
                                           {directory_ / "missing", PathUse::kRead}};
      return Confine(rules).ok() ? ErrorOfOpening(directory_ / path, flags) : 255;
    });
  }
  testing::TempDir directory_;
};

TEST_F(ConfineTest, WhatIsNamedCanBeRead) {
  EXPECT_EQ(Answer("read/file", O_RDONLY), 0);
  EXPECT_EQ(Answer("read", O_RDONLY | O_DIRECTORY), 0);
  EXPECT_EQ(Answer("read/file", O_WRONLY), EACCES);
  EXPECT_EQ(Answer("read/new", O_WRONLY | O_CREAT), EACCES);
  EXPECT_EQ(Answer("read/none", O_RDONLY), ENOENT);
}

TEST_F(ConfineTest, ARuleForALinkIsForWhatItLeadsTo) {
  EXPECT_EQ(Answer("link/file", O_RDONLY), 0);
  EXPECT_EQ(Answer("linked/file", O_RDONLY), 0);
}

// The kernel takes no rule for what lies in a filesystem of its own.
constexpr char kNoPlaceForARule[] = "/proc/self/ns/net";

TEST_F(ConfineTest, ARuleThatTheKernelDoesNotTakeAllowsNothingAndIsTold) {
  EXPECT_EQ(InChild([this] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              const auto confined = Confine(
                  {{directory_ / "read", PathUse::kRead}, {kNoPlaceForARule, PathUse::kRead}});
              if (!confined.ok() || confined->left_out.size() != 1) return 255;
              if (confined->left_out[0].find(kNoPlaceForARule) == std::string::npos) return 254;
              return ErrorOfOpening(directory_ / "other/file", O_RDONLY);
            }),
            EACCES);
}

TEST_F(ConfineTest, ANeededRuleThatTheKernelDoesNotTakeIsAnError) {
  EXPECT_EQ(InChild([this] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              const auto confined = Confine({{directory_ / "read", PathUse::kRead},
                                             {kNoPlaceForARule, PathUse::kRead, true}});
              if (!absl::IsFailedPrecondition(confined.status())) return 255;
              return ErrorOfOpening(directory_ / "other/file", O_RDONLY);
            }),
            0);
}

TEST_F(ConfineTest, WhatIsKeptCanBeWritten) {
  EXPECT_EQ(Answer("keep/file", O_RDWR | O_TRUNC), 0);
  EXPECT_EQ(Answer("keep/new", O_RDWR | O_CREAT), 0);
}

TEST_F(ConfineTest, WhatIsKeptCanHaveDirectories) {
  EXPECT_EQ(InChild([this] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              if (!Confine({{directory_ / "keep", PathUse::kKeep}}).ok()) return 255;
              const std::string made = directory_ / "keep/made";
              if (::mkdir(made.c_str(), 0700) != 0) return errno;
              if (const int error = ErrorOfOpening(made + "/file", O_RDWR | O_CREAT)) return error;
              ::unlink((made + "/file").c_str());
              return ::rmdir(made.c_str()) == 0 ? 0 : errno;
            }),
            0);
}

// Landlock holds for a thread and those that it starts: another one takes the directory away.
TEST_F(ConfineTest, ACacheThatIsReplacedIsWrittenToByANewWorker) {
  for (const bool replaced : {false, true}) {
    std::promise<void> confined, removed;
    std::string message;
    std::thread worker([&] {
      ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      const bool done = Confine({{directory_ / "keep", PathUse::kKeep}}).ok();
      confined.set_value();
      removed.get_future().wait();
      ImageLayout layout;
      layout.key = "key";
      if (done) message = WriteImageCache(directory_ / "keep", layout, {}).ToString();
    });
    confined.get_future().wait();
    fs::remove_all(directory_ / "keep");
    if (replaced) fs::create_directory(directory_ / "keep");
    removed.set_value();
    worker.join();
    EXPECT_THAT(message, HasSubstr("switchyard unload NAME")) << replaced;
    fs::create_directory(directory_ / "keep");
  }
}

TEST_F(ConfineTest, EverythingElseIsClosed) {
  EXPECT_EQ(Answer("other/file", O_RDONLY), EACCES);
  EXPECT_EQ(Answer("read/../other/file", O_RDONLY), EACCES);
  EXPECT_EQ(Answer("other", O_RDONLY | O_DIRECTORY), EACCES);
}

TEST_F(ConfineTest, NoProgramRuns) {
  EXPECT_EQ(InChild([] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              if (!Confine({{"/", PathUse::kRead}}).ok()) return 255;
              ::execl("/bin/true", "true", nullptr);
              return errno;
            }),
            EACCES);
}

TEST_F(ConfineTest, NothingIsReachedOverTcp) {
  if (*LandlockVersion() < 4) GTEST_SKIP() << "version " << *LandlockVersion();
  EXPECT_EQ(InChild([] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              if (!Confine({}).ok()) return 255;
              sockaddr_in address{};
              address.sin_family = AF_INET;
              address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
              address.sin_port = htons(9);
              const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
              const auto* to = reinterpret_cast<const sockaddr*>(&address);
              return ::connect(fd, to, sizeof(address)) == 0 ? 0 : errno;
            }),
            EACCES);
}

TEST_F(ConfineTest, NobodyOutsideIsSignalled) {
  if (*LandlockVersion() < 6) GTEST_SKIP() << "version " << *LandlockVersion();
  EXPECT_EQ(InChild([] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              if (!Confine({}).ok()) return 255;
              return ::kill(::getppid(), 0) == 0 ? 0 : errno;
            }),
            EPERM);
}

}  // namespace
}  // namespace switchyard::worker
