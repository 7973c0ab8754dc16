#include "supervisor/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "supervisor/catalog.h"
#include "supervisor/spawn.h"

namespace switchyard::supervisor {
namespace {

std::vector<std::string> Arguments(const LaunchSpec& spec) {
  return {"--serve",
          "--model-text",
          ModelText(spec.model),
          "--device",
          spec.device,
          "--cache-dir",
          spec.cache_dir,
          "--cache-bytes",
          absl::StrCat(spec.cache_bytes),
          "--threads",
          absl::StrCat(spec.threads),
          "--supervisor-pid",
          absl::StrCat(::getpid())};
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerProcess>> WorkerProcess::Start(
    EventLoop* loop, ChildReaper* reaper, const LaunchSpec& spec, int death_pipe,
    std::function<void(WorkerExit)> exited) {
  ASSIGN_OR_RETURN(auto connection, SocketPair());
  ASSIGN_OR_RETURN(auto descriptors, SocketPair());
  ASSIGN_OR_RETURN(auto log, Pipe());
  // gRPC 1.51 reads a server's descriptor as it finds it; a blocking one would hold its threads.
  ::fcntl(connection.first.get(), F_SETFL, O_NONBLOCK);
  ::fcntl(connection.second.get(), F_SETFL, O_NONBLOCK);

  SpawnSpec child;
  child.program = WorkerProgram();
  child.args = Arguments(spec);
  child.fds = {{log.second.get(), 1},
               {log.second.get(), 2},
               {connection.second.get(), 3},
               {descriptors.second.get(), 4},
               {death_pipe, 5}};
  absl::StatusOr<pid_t> pid;
  loop->OnOwnThread([&] { pid = Spawn(child); });
  RETURN_IF_ERROR(pid.status());

  std::unique_ptr<WorkerProcess> process(new WorkerProcess);
  process->pid_ = *pid;
  process->connection_ = std::move(connection.first);
  process->descriptors_ = std::move(descriptors.first);
  process->log_ = std::make_unique<LogPipe>(loop, spec.model.name(), std::move(log.first));
  process->exited_ = std::move(exited);
  reaper->Add(*pid, [alive = process->alive_](int wait_status) {
    if (*alive != nullptr) (*alive)->OnExit(wait_status);
  });
  return process;
}

WorkerProcess::~WorkerProcess() {
  *alive_ = nullptr;
  Signal(SIGKILL);
}

void WorkerProcess::Signal(int signal) {
  if (!reaped_ && pid_ > 0) ::kill(pid_, signal);
}

void WorkerProcess::OnExit(int wait_status) {
  reaped_ = true;
  log_->Drain();
  auto exited = std::move(exited_);
  exited(WorkerExit{wait_status, log_->last_lines()});
}

}  // namespace switchyard::supervisor
