#include "supervisor/spawn.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

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

TEST(Spawn, PassesOnlyTheEnvironmentThatWorkersNeed) {
  ::setenv("SECRET_TOKEN", "hidden", 1);
  ::setenv("SWITCHYARD_SHOWN", "1", 1);
  const std::string environment = Output("env");
  EXPECT_EQ(environment.find("hidden"), std::string::npos);
  EXPECT_NE(environment.find("SWITCHYARD_SHOWN=1"), std::string::npos);
  EXPECT_NE(environment.find("PATH="), std::string::npos);
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
