#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/accept_loop.h"
#include "supervisor/connection_count.h"
#include "supervisor/event_loop.h"
#include "supervisor/gpu_monitor.h"
#include "supervisor/health.h"
#include "supervisor/held_signals.h"
#include "supervisor/host_store.h"
#include "supervisor/options.h"
#include "supervisor/reload.h"
#include "supervisor/router.h"
#include "supervisor/server.h"
#include "supervisor/service_manager.h"
#include "supervisor/state_dir.h"
#include "supervisor/stop_signals.h"
#include "supervisor/worker_launcher.h"

namespace switchyard::supervisor {

// The whole of a running supervisor, put together. The members stand in the order in which they are
// made, and are unmade the other way round.
class Supervisor {
 public:
  // Locks, listens, reads the catalog and starts: in that order, so that a second supervisor is
  // refused before it touches anything. CANCELLED, with nothing left behind, if SIGTERM or SIGINT
  // comes while models are planned; `signals` are taken when it serves. `stored` is what the
  // service manager kept of the supervisor before; until the catalog is read it keeps that.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Start(const Options& options,
                                                           const Budget& budget,
                                                           HeldSignals& signals,
                                                           std::vector<StoredDescriptor> stored);

  // Serves until SIGTERM or SIGINT, drains, and returns. SIGHUP reads models.d and the
  // configuration file again.
  void Run();

  const HostPort& address() const { return address_; }

 private:
  explicit Supervisor(const Options& options) : options_(options), address_(options.listen) {}
  absl::Status Init(const Budget& budget, HeldSignals& signals,
                    std::vector<StoredDescriptor> stored);
  absl::Status Listen();
  absl::Status StartRouter(const Budget& budget, int stop_fd, std::vector<StoredDescriptor> stored);
  Echo EchoOfQueue();  // on it clients and workers are heard
  void WatchGpus(const Budget& budget);
  void Serve();
  void OnReloadSignal();
  void HearStopSignals(HeldSignals& signals);
  void OnStopSignal(Nanos grace);
  void ShutDownServer();

  const Options options_;
  HostPort address_;
  std::unique_ptr<StateDir> state_dir_;
  EventLoop loop_;
  UniqueFd tcp_listener_, unix_listener_;
  HostStore masters_{[this](uint64_t master_id) {
    loop_.Post([this, master_id] { router_->OnMasterFreed(master_id); });
  }};
  Health health_;
  std::unique_ptr<Server> server_;  // its queue serves the workers' streams, too
  std::unique_ptr<ProcessLauncher> launcher_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<GpuMonitor> gpus_;  // null without GPUs
  std::unique_ptr<Reloader> reloader_;
  std::optional<ServiceManager> manager_;
  std::optional<ConnectionCount> connections_;
  std::vector<std::unique_ptr<AcceptLoop>> accept_loops_;
  std::unique_ptr<StopSignals> stop_signals_;
};

}  // namespace switchyard::supervisor
