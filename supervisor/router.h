#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "supervisor/catalog.h"
#include "supervisor/device_sample.h"
#include "supervisor/ledger.h"
#include "supervisor/ports.h"
#include "supervisor/readiness.h"

namespace switchyard::supervisor {

using RequestId = uint64_t;
template <typename T>
using Reply = std::function<void(absl::StatusOr<T>)>;

struct RouterOptions {
  std::vector<Device> devices;
  uint64_t host_budget_bytes = 0;
  std::string cache_dir;
  uint64_t cache_bytes = 0;  // 0: the workers' choice
  std::string default_model;
  uint32_t worker_threads = 0;
  uint32_t queue_limit = 1024;  // requests that wait for one model
  Nanos drain_timeout = 10 * kSecond;
  bool prefetch_at_start = true;
  // Without a token, then a resident model is probed; 0: only when a request has met damage.
  Nanos probe_interval = 60 * kSecond;
  // A pinned model is probed as soon as it is there, since somebody waits for that: see
  // readiness.h.
  bool prove_pinned = false;
  // Of requests and calls that a worker has not looked at; further ones wait here, in one copy.
  uint64_t unseen_bytes = 16 << 20;
  uint64_t sink_limit_bytes = 1 << 20;  // then the sequence is suspended
  Nanos sink_timeout = 60 * kSecond;    // and ended after this
  size_t most_suspended = 256;          // of all models; the first of more is ended
};

// Owns all state of the supervisor: models, workers, leases, masters, requests, switches. Runs on
// the event loop's tasks, one at a time; every method is called there and none blocks. It asks the
// pure scheduler and eviction what to do, and does it through the ports.
class Router {
 public:
  struct Ports {
    WorkerLauncher* launcher;
    MasterStore* masters;
    Timers* timers;
    HealthPort* health;
    // Asks the driver at once what strangers use: a worker has been reaped, and what is not free
    // yet of what it had counts as theirs. May be null.
    std::function<void()> sample_devices;
    Echo echo;
  };
  Router(RouterOptions options, std::vector<ModelEntry> catalog, Ports ports);
  ~Router();

  // Before Start: a complete master of `model` is there already, of the image that its plan names.
  void Adopt(const std::string& model, uint64_t master_id);
  // Starts workers and background prefetches.
  void Start();
  // Refuses what is new, lets what runs finish for `grace`, ends the rest with a status, ends the
  // workers; then calls `done` once. A second call cuts the grace to nothing.
  void Drain(Nanos grace, std::function<void()> done);

  // The number that a call gets is for CancelRequest: the client is gone, and its sink or reply is
  // dropped without another word. What was asked of a model (Switch, Prefetch, Unload) goes on.
  void CancelRequest(RequestId id);

  // Inference. The sink lives until the router has called Finish, or the server Cancel. Finish may
  // come before Generate returns (refused at once); no sink or reply may call the router back from
  // within its own call: post it.
  RequestId Generate(v1::GenerateRequest request, Nanos deadline /* absolute; 0: none */,
                     std::shared_ptr<GenerateSink> sink);
  void OnSinkDrained(RequestId id);
  RequestId Tokenize(v1::TokenizeRequest request, Reply<v1::TokenizeReply> reply);
  RequestId Detokenize(v1::DetokenizeRequest request, Reply<v1::DetokenizeReply> reply);
  v1::ListModelsReply ListModels() const;
  absl::StatusOr<v1::ModelStatus> GetModel(const std::string& name) const;

  // Control.
  RequestId Switch(const std::string& model, bool make_default, std::shared_ptr<SwitchSink> sink);
  RequestId Unload(const std::string& model, Reply<v1::UnloadReply> reply);
  RequestId Prefetch(const std::string& model, Reply<v1::PrefetchReply> reply);
  absl::Status Pin(const std::string& model, bool pinned);
  v1::Status GetStatus() const;
  void WatchStatus(uint32_t min_interval_ms, std::shared_ptr<StatusSink> sink);
  void StopWatching(const StatusSink* sink);
  // Replaces the catalog; what is unchanged goes on undisturbed. `devices` have the sizes from now
  // on that they have here; less of one is brought about as a stranger's bytes are.
  // FAILED_PRECONDITION, and nothing has changed: it would not hold any more what is pinned on it.
  absl::StatusOr<v1::ReloadConfigReply> Reload(std::vector<ModelEntry> catalog,
                                               const std::vector<Device>& devices = {});
  // How the last reload has ended, also one that did not get as far as that: for status.
  void NoteReload(const absl::Status& ended);
  // Models that have failed get another chance at once, as if an operator had asked for each: their
  // names.
  std::vector<std::string> TryFailedAgain();

  // From the world.
  void OnWorkerMessage(Incarnation worker, const v1::FromWorker& message);
  void OnWorkerGone(Incarnation worker, const WorkerExit& exit);  // reaped
  void OnMasterFreed(uint64_t master_id);
  void OnForeignBytes(const std::string& device, uint64_t bytes);
  // The same while a lease is in motion: what they have is not less, nor more.
  void OnForeignBetween(const std::string& device, uint64_t least, uint64_t most);
  // In order of `at`, a fresh one at least every few seconds; one of another device is dropped.
  void OnDeviceSample(DeviceSample sample);
  // What our workers have of `device`, to be taken from what is used there.
  OurBytes OursOn(const std::string& device) const;

  // How far each model is from answering.
  std::vector<Standing> Standings() const;
  // What should have happened by now and has not, for a watchdog; "": nothing.
  std::string Stuck() const;

  // For tests, cheap enough to be asked after every event: the accounts (nullptr: no such device),
  // and what of the router's own promises is broken ("": nothing).
  const DeviceLedger* Ledger(const std::string& device) const;
  const HostLedger& HostAccount() const;
  std::string Audit() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::supervisor
