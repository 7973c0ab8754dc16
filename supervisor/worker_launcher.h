#pragma once

#include <functional>
#include <map>
#include <memory>

#include "common/unique_fd.h"
#include "rpc/call_queue.h"
#include "supervisor/child_reaper.h"
#include "supervisor/event_loop.h"
#include "supervisor/host_store.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// Starts workers: a process, and the stream to it. Keeps both until the process is reaped and the
// stream has ended, whatever becomes of the port that the router holds.
class ProcessLauncher final : public WorkerLauncher {
 public:
  struct Events {
    std::function<void(Incarnation, const v1::FromWorker&)> message;
    std::function<void(Incarnation, const WorkerExit&)> gone;
  };

  static absl::StatusOr<std::unique_ptr<ProcessLauncher>> Create(EventLoop* loop, CallQueue* queue,
                                                                 const HostStore* masters);
  ~ProcessLauncher() override;

  // Before the first Launch: the router that the events go to is made from the launcher.
  void SetEvents(Events events) { events_ = std::move(events); }

  absl::StatusOr<std::unique_ptr<WorkerPort>> Launch(const LaunchSpec& spec) override;

 private:
  class Worker;
  class Port;
  ProcessLauncher(EventLoop* loop, CallQueue* queue, const HostStore* masters);
  void Forget(Incarnation incarnation);

  EventLoop* const loop_;
  CallQueue* const queue_;
  const HostStore* const masters_;
  ChildReaper reaper_;
  Events events_;
  UniqueFd death_read_;
  UniqueFd death_write_;  // ours alone; its end is what tells workers that we are gone
  std::map<Incarnation, std::shared_ptr<Worker>> workers_;
};

}  // namespace switchyard::supervisor
