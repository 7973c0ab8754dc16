#include "supervisor/worker_launcher.h"

#include <signal.h>

#include <optional>
#include <utility>

#include "common/status_macros.h"
#include "supervisor/worker_client.h"
#include "supervisor/worker_process.h"

namespace switchyard::supervisor {
namespace {

// How long the stream of a reaped worker may take to deliver what the worker had written. Its end
// comes by itself, unless a process that the worker started holds the socket open.
constexpr Nanos kLastWords = kSecond / 2;

}  // namespace

class ProcessLauncher::Worker {
 public:
  Worker(ProcessLauncher* launcher, Incarnation incarnation)
      : launcher_(launcher), incarnation_(incarnation) {}
  ~Worker() {
    if (last_words_) launcher_->loop_->Stop(*last_words_);
  }

  absl::Status Start(const LaunchSpec& spec) {
    EventLoop* const loop = launcher_->loop_;
    ASSIGN_OR_RETURN(process_, WorkerProcess::Start(
                                   loop, &launcher_->reaper_, spec, launcher_->death_read_.get(),
                                   [this](WorkerExit exit) { OnReaped(std::move(exit)); }));
    client_ = std::make_unique<WorkerClient>(
        loop, launcher_->queue_, process_->TakeConnection(),
        WorkerClient::Callbacks{[this](const v1::FromWorker& message) {
                                  launcher_->events_.message(incarnation_, message);
                                },
                                [this] {
                                  closed_ = true;
                                  TellIfGone();
                                }});
    return absl::OkStatus();
  }

  WorkerProcess& process() { return *process_; }
  WorkerClient& client() { return *client_; }
  const HostStore& masters() const { return *launcher_->masters_; }

 private:
  void OnReaped(WorkerExit exit) {
    exit_ = std::move(exit);
    if (!closed_) {
      last_words_ = launcher_->loop_->Start(kLastWords, [this] {
        last_words_.reset();
        client_->Cancel();
      });
    }
    TellIfGone();
  }

  // Gone: reaped, and every message that it sent has been delivered.
  void TellIfGone() {
    if (!closed_ || !exit_) return;
    // Posted: the caller is one of our own members, which Forget destroys.
    launcher_->loop_->Post([launcher = launcher_, incarnation = incarnation_, exit = *exit_] {
      launcher->Forget(incarnation);
      launcher->events_.gone(incarnation, exit);
    });
  }

  ProcessLauncher* const launcher_;
  const Incarnation incarnation_;
  std::unique_ptr<WorkerProcess> process_;
  std::unique_ptr<WorkerClient> client_;
  std::optional<WorkerExit> exit_;
  bool closed_ = false;
  std::optional<Timers::Id> last_words_;
};

class ProcessLauncher::Port final : public WorkerPort {
 public:
  explicit Port(std::shared_ptr<Worker> worker) : pid_(worker->process().pid()), worker_(worker) {}

  void Send(v1::ToWorker message) override {
    if (auto worker = worker_.lock()) worker->client().Send(std::move(message));
  }
  absl::Status SendMaster(uint64_t master_id) override {
    auto worker = worker_.lock();
    if (worker == nullptr) return absl::UnavailableError("the worker is gone");
    ASSIGN_OR_RETURN(const int fd, worker->masters().Find(master_id));
    return SendFd(worker->process().descriptor_socket(), fd, master_id);
  }
  void Terminate(bool force) override {
    if (auto worker = worker_.lock()) worker->process().Signal(force ? SIGKILL : SIGTERM);
  }
  int pid() const override { return pid_; }

 private:
  const int pid_;
  std::weak_ptr<Worker> worker_;  // the launcher owns it
};

absl::StatusOr<std::unique_ptr<ProcessLauncher>> ProcessLauncher::Create(EventLoop* loop,
                                                                         CallQueue* queue,
                                                                         const HostStore* masters) {
  ASSIGN_OR_RETURN(auto death, Pipe());
  std::unique_ptr<ProcessLauncher> launcher(new ProcessLauncher(loop, queue, masters));
  launcher->death_read_ = std::move(death.first);
  launcher->death_write_ = std::move(death.second);
  return launcher;
}

ProcessLauncher::ProcessLauncher(EventLoop* loop, CallQueue* queue, const HostStore* masters)
    : loop_(loop), queue_(queue), masters_(masters), reaper_(loop) {}
ProcessLauncher::~ProcessLauncher() = default;

absl::StatusOr<std::unique_ptr<WorkerPort>> ProcessLauncher::Launch(const LaunchSpec& spec) {
  auto worker = std::make_shared<Worker>(this, spec.incarnation);
  RETURN_IF_ERROR(worker->Start(spec));
  workers_[spec.incarnation] = worker;
  return std::make_unique<Port>(worker);
}

void ProcessLauncher::Forget(Incarnation incarnation) { workers_.erase(incarnation); }

}  // namespace switchyard::supervisor
