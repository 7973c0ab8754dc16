#include "supervisor/spawn.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/unique_fd.h"
#include "supervisor/wait_status.h"

namespace switchyard::supervisor {
namespace {

// What a shell command, run as a child, prints on its standard output.
std::string Output(const std::string& command, std::vector<std::pair<int, int>> more = {}) {
  auto pipe = Pipe();
  SpawnSpec spec;
  spec.program = "/bin/sh";
  spec.args = {"-c", command};
  spec.fds = {{pipe->second.get(), 1}, {2, 2}};
  spec.fds.insert(spec.fds.end(), more.begin(), more.end());
  auto pid = Spawn(spec);
  EXPECT_TRUE(pid.ok()) << pid.status();
  pipe->second.Reset();
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = ::read(pipe->first.get(), buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, got);
  }
  EXPECT_EQ(::waitpid(*pid, nullptr, 0), *pid);
  return text;
}

TEST(Spawn, GivesNoDescriptorsButThoseAskedFor) {
  UniqueFd leak(::dup(0));                                     // not close-on-exec
  EXPECT_EQ(Output("cd /proc/self/fd; echo *"), "0 1 2 3\n");  // 3: the shell reads the directory
}

TEST(Spawn, MovesDescriptorsThatStandInEachOthersWay) {
  auto a = Pipe(), b = Pipe();
  ASSERT_EQ(::write(a->second.get(), "a\n", 2), 2);
  ASSERT_EQ(::write(b->second.get(), "b\n", 2), 2);
  // Low numbers, swapped.
  UniqueFd three(::dup2(a->first.get(), 30)), four(::dup2(b->first.get(), 31));
  EXPECT_EQ(Output("read x <&3; read y <&4; echo $x$y", {{31, 3}, {30, 4}}), "ba\n");
}

// Variables of ours that are there until the end of a test, if they were not there before.
class Environment {
 public:
  ~Environment() {
    for (const std::string& name : set_) ::unsetenv(name.c_str());
  }
  void Add(const std::string& name) {
    if (std::getenv(name.c_str()) != nullptr) return;
    ::setenv(name.c_str(), "x=1", 1);
    set_.push_back(name);
  }

 private:
  std::vector<std::string> set_;
};

TEST(Spawn, PassesOnlyTheEnvironmentThatWorkersNeed) {
  const std::set<std::string> kept = {
      "PATH",         "LD_LIBRARY_PATH",    "ASAN_OPTIONS",          "UBSAN_OPTIONS",
      "TSAN_OPTIONS", "SWITCHYARD_SANDBOX", "SWITCHYARD_FAKE_FAULT", "CUDA_VISIBLE_DEVICES",
      "NVIDIA_DRIVER"};
  Environment environment;
  for (const std::string& name : kept) environment.Add(name);
  // Of ours, of the command's, of everybody's.
  for (const char* name : {"SWITCHYARD_SANDBOX_TOO", "SWITCHYARD_TOKEN_FILE", "SWITCHYARD_TLS_CA",
                           "SWITCHYARD_WORKER", "HOME", "SECRET_TOKEN"}) {
    environment.Add(name);
  }
  std::set<std::string> names;
  for (const absl::string_view line : absl::StrSplit(Output("cat /proc/self/environ"), '\0')) {
    names.emplace(line.substr(0, line.find('=')));
  }
  for (const char* by_the_shell : {"", "PWD", "OLDPWD", "SHLVL", "_"}) names.erase(by_the_shell);
  std::set<std::string> expected = kept;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string name(*variable, std::strcspn(*variable, "="));
    if (name.rfind("CUDA_", 0) == 0 || name.rfind("NVIDIA_", 0) == 0) expected.insert(name);
  }
  EXPECT_EQ(names, expected);
}

TEST(Spawn, ReadsNothingFromOurInput) { EXPECT_EQ(Output("cat"), ""); }

TEST(Spawn, IsInAGroupOfItsOwn) {
  EXPECT_NE(Output("ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat"),
            std::to_string(::getpgrp()) + "\n");
}

TEST(Spawn, SaysWhatCannotBeStarted) {
  SpawnSpec spec;
  spec.program = "/nonexistent/worker";
  auto pid = Spawn(spec);
  ASSERT_FALSE(pid.ok());
  EXPECT_NE(pid.status().message().find("/nonexistent/worker"), absl::string_view::npos);
}

TEST(Spawn, DescribesHowAChildEnded) {
  EXPECT_EQ(DescribeWaitStatus(3 << 8), "exit status 3");
  EXPECT_EQ(DescribeWaitStatus(9), "signal 9 (Killed)");
}

}  // namespace
}  // namespace switchyard::supervisor
