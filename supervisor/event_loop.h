#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "common/clock.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// Owns all state of the supervisor: everything that is handed to it runs one at a time, on the
// loop's thread, or (what is dispatched) on the thread that brought it. Everything but Post and
// Dispatch is called from within such a task, or before Run.
//
// The loop's thread is the main thread, since workers must be spawned by a thread that lives as
// long as the process (their parent-death signal is tied to it): see OnOwnThread.
class EventLoop final : public Timers {
 public:
  using Task = absl::AnyInvocable<void()>;

  // Calls back while a descriptor is readable, until it is destroyed. Does not own the descriptor,
  // and must be destroyed before it is closed.
  class Watch {
   public:
    virtual ~Watch() = default;
  };

  EventLoop();
  ~EventLoop() override;

  // Runs tasks, timers, signals and watches until Stop. On the thread that made the loop.
  void Run();
  void Stop();

  // Runs `task` on the loop's thread, in the order of the calls. From any thread. Tasks that are
  // left when the loop has stopped are destroyed without being run.
  void Post(Task task);

  // Like Post and in one order with it, but where nothing else runs or waits the task runs at once,
  // on the calling thread: what a request would lose by waking another thread is more than the
  // router takes. The caller holds no lock that a task takes.
  void Dispatch(Task task);

  // Runs `work` on the loop's thread and waits for it. From a task.
  void OnOwnThread(absl::FunctionRef<void()> work);

  // `handler` runs as a task on the loop's thread, never in a signal handler. After the loop these
  // signals are ignored.
  void OnSignals(std::initializer_list<int> signals, std::function<void(int)> handler);

  // `ready` and what Start takes run as tasks, too.
  std::unique_ptr<Watch> WatchReadable(int fd, std::function<void()> ready);

  Id Start(Nanos delay, std::function<void()> fire) override;
  void Stop(Id id) override;
  Nanos Now() const override { return clock_.Now(); }

 private:
  class Impl;
  SteadyClock clock_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::supervisor
