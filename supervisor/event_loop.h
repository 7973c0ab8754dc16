#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "common/clock.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// The thread that owns all state of the supervisor: the main thread, since workers must be spawned
// by a thread that lives as long as the process (their parent-death signal is tied to it).
// Everything but Post and Stop is called on that thread.
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

  // Runs tasks, timers, signals and watches until Stop.
  void Run();
  void Stop();  // from any thread

  // Runs `task` on the loop's thread, in the order of the calls. From any thread. Tasks that are
  // left when the loop has stopped are destroyed without being run.
  void Post(Task task);

  // `handler` runs on the loop's thread, never in a signal handler.
  void OnSignals(std::initializer_list<int> signals, std::function<void(int)> handler);

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
