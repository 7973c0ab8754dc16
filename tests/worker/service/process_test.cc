// The real binary: its usage, its plan, its connection, its end.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "common/plan_exit.h"
#include "common/unique_fd.h"
#include "switchyard/v1/worker.grpc.pb.h"
#include "tests/worker/service/support.h"
#include "worker/serve.h"

namespace switchyard::worker {
namespace {

using ::testing::HasSubstr;

// Starts switchyard-worker with `fds` as its descriptors 1, 2, ... and all others closed.
pid_t Spawn(const std::vector<std::string>& args, const std::vector<int>& fds) {
  const std::string program = std::string(SWITCHYARD_BINARY_DIR) + "/bin/switchyard-worker";
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  std::vector<UniqueFd> moved;  // out of the way of the targets
  int target = 1;
  for (int fd : fds) {
    moved.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 64));
    posix_spawn_file_actions_adddup2(&actions, moved.back().get(), target++);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions, target);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

int WaitFor(pid_t pid) {
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return status;
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[4096];
  ssize_t got;
  while ((got = ::read(fd, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

struct Ran {
  int exit_code;
  std::string out, err;
};

Ran RunWorker(const std::vector<std::string>& args) {
  auto out = Pipe(), err = Pipe();
  const pid_t pid = Spawn(args, {out->second.get(), err->second.get()});
  out->second.Reset();
  err->second.Reset();
  Ran ran;
  ran.out = ReadAll(out->first.get());
  ran.err = ReadAll(err->first.get());
  const int status = WaitFor(pid);
  ran.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

std::vector<std::string> Flags(const std::string& mode, const v1::Model& model) {
  return {mode, "--model-text", model.ShortDebugString(), "--device", "cpu", "--threads", "1"};
}

TEST(Process, WrongUsageIsTwo) {
  const Ran ran = RunWorker({"--plan"});
  EXPECT_EQ(ran.exit_code, 2);
  EXPECT_THAT(ran.err, HasSubstr("usage:"));
}

TEST(Process, PrintsThePlan) {
  const Ran ran = RunWorker(Flags("--plan", GoldenEntry("llama_defaults")));
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("family: \"llama\""));
  std::vector<std::string> flags = Flags("--plan", GoldenEntry("llama_defaults"));
  flags.push_back("--json");
  EXPECT_THAT(RunWorker(flags).out, HasSubstr("\"family\":\"llama\""));
}

TEST(Process, ARefusedPlanIsOneLine) {
  v1::Model model = GoldenEntry("llama_defaults");
  model.set_context_length(1 << 30);
  const Ran ran = RunWorker(Flags("--plan", model));
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.err, HasSubstr("context_length"));
  EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
}

// What the machine, not the file, has against its being read.
TEST(Process, APlannerThatCannotReadForNowHasNoVerdict) {
  const auto exit_status = [](int error) {
    return ExitStatus(Mode::kPlan, absl::ErrnoToStatus(error, "/m/model.safetensors"));
  };
  for (int error : {EIO, EMFILE, ENFILE, ENOMEM, EAGAIN, EINTR, ESTALE, ETIMEDOUT, EHOSTDOWN}) {
    EXPECT_EQ(exit_status(error), kNoVerdict) << error;
  }
  for (int error : {ENOENT, EACCES, EPERM, ENOTDIR, EISDIR, ENAMETOOLONG}) {
    EXPECT_EQ(exit_status(error), 1) << error;
  }
  EXPECT_EQ(ExitStatus(Mode::kPlan, absl::InvalidArgumentError("truncated?")), 1);
  EXPECT_EQ(ExitStatus(Mode::kPlan, absl::OkStatus()), 0);
  EXPECT_EQ(ExitStatus(Mode::kServe, absl::ErrnoToStatus(EIO, "")), 1);
}

class ServingProcess : public ::testing::Test {
 protected:
  ServingProcess() {
    auto connection = SocketPair(), descriptors = SocketPair();
    auto death = Pipe();
    std::vector<std::string> flags = Flags("--serve", GoldenEntry("llama_defaults"));
    flags.insert(flags.end(), {"--supervisor-pid", std::to_string(::getpid())});
    pid_ = Spawn(flags, {STDERR_FILENO, STDERR_FILENO, connection->second.get(),
                         descriptors->second.get(), death->first.get()});
    death_ = std::move(death->second);
    descriptors_ = std::move(descriptors->first);
    channel_ = grpc::CreateInsecureChannelFromFd("worker", connection->first.Release());
    stub_ = v1::Worker::NewStub(channel_);
    stream_ = stub_->Serve(&context_);
  }

  grpc::ClientContext context_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Worker::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ToWorker, v1::FromWorker>> stream_;
  UniqueFd death_, descriptors_;
  pid_t pid_ = 0;
};

// Whatever opening the device and the checkpoint takes, it is known to live.
TEST_F(ServingProcess, BeatsBeforeItSaysHello) {
  v1::FromWorker message;
  ASSERT_TRUE(stream_->Read(&message));
  EXPECT_TRUE(message.has_heartbeat());
  EXPECT_GT(message.heartbeat().rss_bytes(), 0u);
  ::kill(pid_, SIGKILL);
  WaitFor(pid_);
  stream_->Finish();
}

// What comes meanwhile is not lost.
TEST_F(ServingProcess, DoesWhatItWasToldBeforeHelloAfterIt) {
  v1::ToWorker shutdown;
  shutdown.mutable_shutdown();
  EXPECT_TRUE(stream_->Write(shutdown));
  v1::FromWorker message;
  bool hello = false;
  while (stream_->Read(&message)) hello |= message.has_hello();
  EXPECT_TRUE(hello);
  EXPECT_TRUE(stream_->Finish().ok());
  const int status = WaitFor(pid_);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(ServingProcess, SaysHelloAndEndsWithShutdown) {
  v1::FromWorker message;
  do {
    ASSERT_TRUE(stream_->Read(&message));
  } while (!message.has_hello());
  EXPECT_EQ(message.hello().pid(), pid_);
  EXPECT_EQ(message.hello().plan().family(), "llama");
  v1::ToWorker shutdown;
  shutdown.mutable_shutdown();
  EXPECT_TRUE(stream_->Write(shutdown));
  while (stream_->Read(&message)) {
  }
  EXPECT_TRUE(stream_->Finish().ok());
  const int status = WaitFor(pid_);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(ServingProcess, EndsWhenItsStreamIsClosed) {
  v1::FromWorker message;
  ASSERT_TRUE(stream_->Read(&message));
  context_.TryCancel();
  const int status = WaitFor(pid_);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  stream_->Finish();
}

TEST_F(ServingProcess, EndsWhenTheDeathPipeCloses) {
  v1::FromWorker message;
  ASSERT_TRUE(stream_->Read(&message));
  death_.Reset();
  const int status = WaitFor(pid_);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  context_.TryCancel();
  stream_->Finish();
}

TEST_F(ServingProcess, EndsWhenTheDeathPipeClosesBeforeItServes) {
  death_.Reset();
  const int status = WaitFor(pid_);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  context_.TryCancel();
  stream_->Finish();
}

TEST_F(ServingProcess, NobodyLooksInside) {
  v1::FromWorker message;
  ASSERT_TRUE(stream_->Read(&message));
  // Not dumpable: /proc/PID belongs to root, whoever runs it.
  const std::string limits = "/proc/" + std::to_string(pid_) + "/limits";
  UniqueFd fd(::open(limits.c_str(), O_RDONLY));
  if (fd.valid()) {
    const std::string text = ReadAll(fd.get());
    const size_t at = text.find("Max core file size");
    ASSERT_NE(at, std::string::npos);
    EXPECT_THAT(text.substr(at, 60), HasSubstr(" 0 "));
  }
  ::kill(pid_, SIGKILL);
  WaitFor(pid_);
  stream_->Finish();
}

}  // namespace
}  // namespace switchyard::worker
