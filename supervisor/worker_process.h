#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "supervisor/child_reaper.h"
#include "supervisor/event_loop.h"
#include "supervisor/log_pipe.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// `switchyard-worker --serve` as a child process. It inherits
//   3  its end of the gRPC connection
//   4  its end of the socket over which descriptors of masters travel
//   5  the read end of the death pipe: end of file means that the supervisor is gone
// and writes its log to a pipe that is always drained.
class WorkerProcess {
 public:
  // The last lines of standard error are complete when `exited` is called. It may destroy the
  // object.
  static absl::StatusOr<std::unique_ptr<WorkerProcess>> Start(
      EventLoop* loop, ChildReaper* reaper, const LaunchSpec& spec, int death_pipe,
      std::function<void(WorkerExit)> exited);

  WorkerProcess(const WorkerProcess&) = delete;
  // Kills the process if it is not reaped yet, and leaves it to init.
  ~WorkerProcess();

  pid_t pid() const { return pid_; }
  // Does nothing once the process is reaped: its pid may be another's by then.
  void Signal(int signal);

  UniqueFd TakeConnection() { return std::move(connection_); }
  int descriptor_socket() const { return descriptors_.get(); }

 private:
  WorkerProcess() = default;
  void OnExit(int wait_status);

  pid_t pid_ = 0;
  bool reaped_ = false;
  UniqueFd connection_;
  UniqueFd descriptors_;
  std::unique_ptr<LogPipe> log_;
  std::function<void(WorkerExit)> exited_;
  // Outlives the object in the reaper's callback, which must not find it gone.
  std::shared_ptr<WorkerProcess*> alive_ = std::make_shared<WorkerProcess*>(this);
};

}  // namespace switchyard::supervisor
