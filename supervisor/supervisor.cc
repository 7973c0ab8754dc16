#include "supervisor/supervisor.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <thread>
#include <utility>

#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "supervisor/config_check.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kShutdownTimeout = 10 * kSecond;
// After the drain: for streams to take their last messages, then for gRPC to let go of them. With
// what the router gives workers that do not end (1.2 s) that is less than 2 s.
constexpr Nanos kServerGrace = 300 * kMillisecond;
constexpr std::chrono::milliseconds kHardExit{700};
constexpr Nanos kAfterDrain = 2 * kSecond;  // as it is promised
// Connections that the Unix socket has beyond the limit: whoever fills the port locks nobody out
// there.
constexpr size_t kForOperators = 64;
// Where there is a token, a connection over TCP must have made a call with it by then.
constexpr Nanos kProvesWithin = 60 * kSecond;

Nanos FromProto(bool set, const google::protobuf::Duration& duration, Nanos otherwise) {
  return set ? duration.seconds() * kSecond + duration.nanos() : otherwise;
}

RouterOptions MakeRouterOptions(const Options& told, const Budget& budget) {
  const v1::SupervisorConfig& config = told.config;
  RouterOptions options;
  options.devices = budget.devices;
  options.host_budget_bytes = budget.host_bytes;
  options.cache_dir = told.cache_dir;
  options.cache_bytes = ParseBytes(config.cache_size()).value_or(0);
  options.default_model = config.default_model();
  options.worker_threads = config.worker_threads();
  if (config.queue_limit() != 0) options.queue_limit = config.queue_limit();
  options.drain_timeout =
      FromProto(config.has_drain_timeout(), config.drain_timeout(), options.drain_timeout);
  options.probe_interval =
      FromProto(config.has_probe_interval(), config.probe_interval(), options.probe_interval);
  options.prove_pinned = ServiceManager::Listens();
  if (config.has_prefetch_at_start()) options.prefetch_at_start = config.prefetch_at_start();
  return options;
}

size_t MostConnections() {
  rlimit descriptors{};
  if (::getrlimit(RLIMIT_NOFILE, &descriptors) != 0) return AcceptLoop::kMostConnections;
  const size_t most = AcceptLoop::MostConnections(descriptors.rlim_cur);
  if (most < AcceptLoop::kMostConnections) {
    LogWarning("only ", most, " connections are taken, not ", AcceptLoop::kMostConnections,
               ": the limit of descriptors (LimitNOFILE=, ulimit -Hn) is ", descriptors.rlim_cur);
  }
  return most;
}

// Our own, unless the directory gives it another.
gid_t GroupOf(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_gid : ::getegid();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Start(
    const Options& options, const Budget& budget, HeldSignals& signals,
    std::vector<StoredDescriptor> stored) {
  std::unique_ptr<Supervisor> supervisor(new Supervisor(options));
  RETURN_IF_ERROR(supervisor->Init(budget, signals, std::move(stored)));
  return supervisor;
}

absl::Status Supervisor::Init(const Budget& budget, HeldSignals& signals,
                              std::vector<StoredDescriptor> stored) {
  ASSIGN_OR_RETURN(state_dir_, StateDir::Lock(options_.state_dir, options_.state_dir_is_temporary));
  RETURN_IF_ERROR(Listen());
  ASSIGN_OR_RETURN(server_, Server::Create(options_.credentials));
  RETURN_IF_ERROR(StartRouter(budget, signals.stop_fd(), std::move(stored)));
  Serve();
  manager_.emplace(&loop_, router_.get(), EchoOfQueue());
  manager_->Start();
  HearStopSignals(signals);
  return absl::OkStatus();
}

// Connections that come before we serve wait in the listeners' queues.
absl::Status Supervisor::Listen() {
  ASSIGN_OR_RETURN(tcp_listener_, ListenTcp(&address_, options_.credentials.given()));
  ASSIGN_OR_RETURN(unix_listener_, ListenUnix(state_dir_->socket_path()));
  return absl::OkStatus();
}

absl::Status Supervisor::StartRouter(const Budget& budget, int stop_fd,
                                     std::vector<StoredDescriptor> stored) {
  ASSIGN_OR_RETURN(std::vector<ModelEntry> catalog,
                   ReadCatalog(options_.models_dir, budget, PlanFor::kServe, stop_fd,
                               [] { ServiceManager::NotReadyFor(kLongestPlanning); }));
  RETURN_IF_ERROR(CheckDefaultModel(options_.config.default_model(), catalog));
  for (const Device& device : budget.devices) {
    LogInfo("device ", device.name, ": ", HumanBytes(device.capacity_bytes), ", ",
            HumanBytes(device.reserve_bytes), " in reserve");
  }
  LogInfo("host memory for masters: ", HumanBytes(budget.host_bytes));
  LogProblems(catalog);
  const auto adopted = masters_.Adopt(std::move(stored), catalog, budget.host_bytes);
  ASSIGN_OR_RETURN(launcher_, ProcessLauncher::Create(&loop_, server_->queue(), &masters_));
  const auto sample_devices = [this] {
    if (gpus_) gpus_->AskNow();
  };
  router_ = std::make_unique<Router>(
      MakeRouterOptions(options_, budget), catalog,
      Router::Ports{launcher_.get(), &masters_, &loop_, &health_, sample_devices, EchoOfQueue()});
  for (const auto& [model, master_id] : adopted) router_->Adopt(model, master_id);
  launcher_->SetEvents({[this](Incarnation worker, const v1::FromWorker& message) {
                          router_->OnWorkerMessage(worker, message);
                        },
                        [this](Incarnation worker, const WorkerExit& exit) {
                          router_->OnWorkerGone(worker, exit);
                        }});
  ASSIGN_OR_RETURN(reloader_,
                   Reloader::Create(&loop_, router_.get(),
                                    {options_.models_dir, options_.config_file, options_.flags},
                                    {options_, budget}, std::move(catalog)));
  WatchGpus(budget);
  router_->Start();
  return absl::OkStatus();
}

Echo Supervisor::EchoOfQueue() {
  return [this](std::function<void()> back) {
    server_->queue()->Post([this, back = std::move(back)] { loop_.Dispatch(back); });
  };
}

void Supervisor::WatchGpus(const Budget& budget) {
  const bool any = std::any_of(budget.devices.begin(), budget.devices.end(),
                               [](const Device& device) { return device.name != "cpu"; });
  if (!any) return;
  auto nvml = Nvml::Open();
  if (!nvml.ok()) {
    LogWarning("what others use of the GPUs is not known: ", nvml.status().message());
    return;
  }
  gpus_ = std::make_unique<GpuMonitor>(
      &loop_, *std::move(nvml), budget.devices,
      GpuMonitor::Listener{
          [this](const std::string& device) { return router_->OursOn(device); },
          [this](const std::string& device, uint64_t bytes) {
            router_->OnForeignBytes(device, bytes);
          },
          [this](const std::string& device, uint64_t least, uint64_t most) {
            router_->OnForeignBetween(device, least, most);
          },
          [this](DeviceSample sample) { router_->OnDeviceSample(std::move(sample)); }});
  gpus_->Start();
}

void Supervisor::Serve() {
  connections_.emplace(&loop_);
  server_->Serve(
      {&loop_, router_.get(), &health_,
       [this](Reply<v1::ReloadConfigReply> reply) { reloader_->Reload(std::move(reply)); },
       [this](const std::string& peer) { connections_->Proved(peer); }},
      {options_.config.control(), RouterOptions().sink_limit_bytes,
       ParseBytes(options_.config.request_memory()).value_or(0), state_dir_->socket_path()});
  AcceptLoop::Options tcp, unix_socket;
  tcp.max_connections = unix_socket.max_connections = MostConnections();
  if (options_.credentials.given()) tcp.proves_within = kProvesWithin;
  unix_socket.check_peer = true;
  unix_socket.max_connections += kForOperators;
  unix_socket.group = GroupOf(state_dir_->socket_path());
  accept_loops_.push_back(std::make_unique<AcceptLoop>(
      &loop_, std::move(tcp_listener_), tcp, &*connections_,
      [this](UniqueFd connection) { server_->AddTcpConnection(std::move(connection)); }));
  accept_loops_.push_back(std::make_unique<AcceptLoop>(
      &loop_, std::move(unix_listener_), unix_socket, &*connections_,
      [this](UniqueFd connection) { server_->AddUnixConnection(std::move(connection)); }));
  loop_.OnSignals({SIGHUP}, [this](int) { OnReloadSignal(); });
}

void Supervisor::OnReloadSignal() {
  manager_->Reloading();
  reloader_->Reload([this](const absl::StatusOr<v1::ReloadConfigReply>&) { manager_->Reloaded(); });
}

// The first signal drains, the second cuts the drain short, the third does not wait for anything.
// What was promised holds for a loop that hangs, too.
void Supervisor::HearStopSignals(HeldSignals& signals) {
  const v1::SupervisorConfig& config = options_.config;
  StopSignals::Options options;
  options.grace =
      FromProto(config.has_shutdown_timeout(), config.shutdown_timeout(), kShutdownTimeout);
  options.after = kAfterDrain;
  options.heard = [this, grace = options.grace](int nth) {
    loop_.Post([this, nth, grace] { OnStopSignal(nth == 1 ? grace : 0); });
  };
  options.clean_up = [this] { state_dir_->Remove(); };
  stop_signals_ = std::make_unique<StopSignals>(signals.Take(), std::move(options));
}

void Supervisor::OnStopSignal(Nanos grace) {
  manager_->Stopping(grace + kAfterDrain);
  LogInfo(grace == 0 ? "stopping now" : "stopping: draining what runs");
  router_->Drain(grace, [this] {
    server_->RefuseCalls();
    loop_.Stop();
  });
}

void Supervisor::Run() {
  loop_.Run();
  ShutDownServer();
}

// The server waits for every operation of every call. One that does not end, by a mistake of ours
// or of gRPC's, must not keep the process alive: the workers are gone already. What outlives the
// process goes first.
void Supervisor::ShutDownServer() {
  std::thread([] {
    std::this_thread::sleep_for(kHardExit);
    ::_exit(0);
  }).detach();
  stop_signals_.reset();
  accept_loops_.clear();
  state_dir_.reset();
  reloader_.reset();  // its planner may hang in a file system
  server_->Shutdown(kServerGrace);
}

}  // namespace switchyard::supervisor
