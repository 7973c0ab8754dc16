#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/pins.h"
#include "supervisor/router.h"
#include "supervisor/router_state.h"

// The router's inside. One class, since all of it is one state; its parts are in files of their
// own:
//   router.cc            construction, Pump, draining
//   router_requests.cc   Generate, Tokenize: their life until they end
//   router_events.cc     what workers say of requests
//   router_workers.cc    launch, watch, end, loss, back-off
//   router_masters.cc    fill, attach, drop
//   router_leases.cc     grow, shrink, drain, pause: the lease protocol with one worker
//   router_turns.cc      what waits and for how long, as values for the scheduler; overdue requests
//   router_swaps.cc      asks the scheduler and carries one swap a device
//   router_loads.cc      loads that fail, and the next try
//   router_switches.cc   Switch and Load, and what they tell
//   router_probes.cc     self-probes of resident models, and what is stuck
//   router_catalog.cc    Unload, Pin, Reload
//   router_devices.cc    their sizes, what the driver says of them, and whose energy it was
//   router_status.cc     status, watching, health
//   router_audit.cc      what must hold between any two events
//
// Every event changes state through these and then calls Pump(), which starts whatever has become
// possible. Nothing else starts anything, so the order of events does not matter.
namespace switchyard::supervisor {

// For a worker that was asked to end, then it is killed: as long as for one that hangs, since a
// swap may wait for its bytes, and nothing of it is lost.
constexpr Nanos kEndPatience = 5 * kSecond;

class Router::Impl {
 public:
  Impl(RouterOptions options, std::vector<ModelEntry> catalog, Ports ports);
  ~Impl();

  // router.cc
  void Start();
  void Drain(Nanos grace, std::function<void()> done);
  void Pump();

  uint64_t NextId() { return state_.next_id++; }  // never 0

  // router_requests.cc
  RequestId Generate(v1::GenerateRequest request, Nanos deadline,
                     std::shared_ptr<GenerateSink> sink);
  void CancelRequest(RequestId id);
  void OnSinkDrained(RequestId id);
  // Tokenize and Detokenize: `command` is the part of a message that carries the request, `answer`
  // the part of the worker's that carries the reply.
  template <typename Command, typename Request, typename Done, typename T>
  RequestId Ask(Command* (v1::ToWorker::*command)(), Request request,
                const Done& (v1::FromWorker::*answer)() const, Reply<T> reply);

  // router_status.cc
  v1::ModelStatus ModelStatusOf(const ModelRecord& model, const std::string& no_room) const;
  v1::Status GetStatus() const;
  v1::ListModelsReply ListModels() const;
  absl::StatusOr<v1::ModelStatus> GetModel(const std::string& name) const;
  void WatchStatus(uint32_t min_interval_ms, std::shared_ptr<StatusSink> sink);
  void StopWatching(const StatusSink* sink);
  void NoteReload(const absl::Status& ended);
  std::vector<std::string> TryFailedAgain();
  void TellProblems(v1::ReloadConfigReply& reply) const;
  void TellPinsWithoutRoom(v1::ReloadConfigReply& reply) const;
  OurBytes OursOn(const std::string& device) const;
  std::vector<Standing> Standings() const;

  // router_audit.cc
  const State& state() const { return state_; }
  std::string Audit() const;

  // router_switches.cc
  void Switch(RequestId id, const std::string& model, bool make_default,
              std::shared_ptr<SwitchSink> sink);

  // router_catalog.cc
  void Unload(RequestId id, const std::string& model, Reply<v1::UnloadReply> reply);
  absl::Status Pin(const std::string& model, bool pinned);
  absl::StatusOr<v1::ReloadConfigReply> Reload(std::vector<ModelEntry> catalog,
                                               const std::vector<Device>& devices);

  // router_starved.cc
  static bool IsStarved(const absl::Status& why);
  int NoteStarved(ModelRecord& model, const absl::Status& why);
  void LaunchStarved(ModelRecord& model, const absl::Status& launch);
  void MasterStarved(ModelRecord& model, const absl::Status& why);

  // router_masters.cc
  void Adopt(const std::string& model, uint64_t master_id);
  void OnMasterFreed(uint64_t master_id);
  void Prefetch(RequestId id, const std::string& model, Reply<v1::PrefetchReply> reply);

  // router_workers.cc
  void OnWorkerMessage(Incarnation worker, const v1::FromWorker& message);
  void OnWorkerGone(Incarnation worker, const WorkerExit& exit);
  // router_swaps.cc
  void OnForeignBytes(const std::string& device, uint64_t bytes);
  void OnForeignBetween(const std::string& device, uint64_t least, uint64_t most);
  // router_devices.cc
  void OnDeviceSample(DeviceSample sample);
  // router_probes.cc
  std::string Stuck() const;

 private:
  using Phase = WorkerSlot::Phase;
  using Stage = Request::Stage;
  using Motion = LeaseSlot::Motion;

  // router.cc
  Nanos Now() const { return ports_.timers->Now(); }
  void Arm(Alarm& alarm, Nanos delay, std::function<void()> fire);  // then pumps
  void ArmTwice(Alarm& alarm, Nanos delay, std::function<void()> judge);
  void AwaitEcho(Alarm& alarm, std::function<void()> look_again);
  ModelRecord* Find(const std::string& name);
  const ModelRecord* Find(const std::string& name) const;
  // The model of this name, the default one without; Resolve also refuses while we drain.
  absl::StatusOr<ModelRecord*> Lookup(const std::string& name) const;
  absl::StatusOr<ModelRecord*> Resolve(const std::string& name);
  absl::StatusOr<ModelRecord*> ResolveNamed(const std::string& name);
  absl::Status Refusal(const ModelRecord& model) const;
  absl::Status RefusalOf(const std::string& asked, const ModelRecord& model) const;
  DeviceSlot& DeviceOf(const ModelRecord& model) { return *state_.devices[model.device]; }
  const DeviceSlot& DeviceOf(const ModelRecord& model) const {
    return *state_.devices[model.device];
  }
  ModelRecord& AddModel(ModelEntry entry);
  void Install(ModelRecord& model);
  size_t IndexOf(const std::string& device) const;
  void ChooseDefault();
  void EndEverything();
  bool HoldsUpTheEnd(const ModelRecord& model) const;
  void PumpShutdown();
  void Touch(ModelRecord& model);
  void ArmIdle(ModelRecord& model);

  // router_requests.cc
  bool CancelCall(uint64_t id);
  void ForgetClient(RequestId id);
  void StartCall(uint64_t id, const std::string& model, v1::ToWorker message,
                 std::function<void(absl::Status, const v1::FromWorker*)> reply);
  Request* FindRequest(RequestId id);
  // What a worker speaks of: null where the request is not one of its model's.
  Request* FindRequestOf(const ModelRecord& model, RequestId id);
  size_t FreeSlots(const ModelRecord& model) const;
  void SendUnsent(ModelRecord& model);
  bool MaySend(const ModelRecord& model) const;
  void SendCall(ModelRecord& model, uint64_t id);
  void SubmitTo(ModelRecord& model, Request& request);
  void EnterStage(ModelRecord& model, Request& request, Stage stage);
  void LeaveStage(ModelRecord& model, Request& request);
  void NoteWork(const ModelRecord& model);
  bool AtEase(const ModelRecord& model) const;
  void SetStage(ModelRecord& model, Request& request, Stage stage);
  void TellWaiting(Request& request);
  // Ends it; with `cancel`, its worker is told to forget it.
  void EndRequest(Request& request, const absl::Status& status, bool cancel);
  // The same before it is done, for `why`; of one whose client has output, which it would get
  // again, ABORTED.
  void BreakOff(Request& request, const absl::Status& why, bool cancel);
  void Forget(Request& request, bool cancel);
  // Every request of the model that has not started. `why` ends it.
  void EndWaiting(ModelRecord& model, const absl::Status& why);
  void EndCalls(ModelRecord& model, const absl::Status& why);
  void TakeBackWaiting(ModelRecord& model);

  // router_events.cc
  void OnAccepted(ModelRecord& model, const v1::Accepted& accepted);
  void OnRejected(ModelRecord& model, const v1::Rejected& rejected);
  void OnSteps(ModelRecord& model, const v1::StepEvents& steps);
  void OnEvent(ModelRecord& model, Request& request, const v1::GenerateEvent& event);
  void OnCallDone(ModelRecord& model, uint64_t id, int code, const std::string& message,
                  const v1::FromWorker& from);
  void CheckSink(ModelRecord& model, Request& request);
  void EndStalled(Request& request, const std::string& beside);
  void EndSuspension(Request& request);

  // router_workers.cc
  bool WantsWorker(const ModelRecord& model) const;
  void PumpWorker(ModelRecord& model);
  void Launch(ModelRecord& model);
  void OnHello(ModelRecord& model, const v1::Hello& hello);
  void OnHeartbeat(ModelRecord& model, const v1::Heartbeat& heartbeat);
  void OnSignOfStart(ModelRecord& model);
  void WatchSilence(ModelRecord& model);
  void EndWorker(ModelRecord& model, Nanos patience);
  void KillWorker(ModelRecord& model, const std::string& reason);
  void AwaitReaping(ModelRecord& model);
  void GiveUp(ModelRecord& model);
  void OnFailure(ModelRecord& model, const std::string& what, Nanos lived);
  void RequestsAfterLoss(ModelRecord& model, bool planned, const std::string& what);
  void CallsAfterLoss(ModelRecord& model);
  bool Ready(const ModelRecord& model) const { return model.worker.phase == Phase::kReady; }
  void Send(ModelRecord& model, v1::ToWorker message);

  // router_masters.cc
  bool WantsMaster(const ModelRecord& model) const;
  void PumpMasters();
  bool FillMaster(ModelRecord& model, bool may_drop);
  bool MakeHostRoom(const ModelRecord& model, uint64_t bytes);
  uint64_t HostRoomComing() const;
  void SendMaster(ModelRecord& model);
  void DropMaster(ModelRecord& model);
  void DiscardMaster(ModelRecord& model);
  void LeaveMaster(ModelRecord& model);
  void ForgetMaster(ModelRecord& model);
  void AttachMaster(ModelRecord& model);
  void OnMaster(ModelRecord& model, const v1::MasterStatus& status);
  void NoteFilling(ModelRecord& model, uint64_t done);
  void WatchMaster(ModelRecord& model);
  void FinishPrefetches(ModelRecord& model, const absl::Status& status);

  // router_leases.cc
  LeaseEntry LeaseOf(const ModelRecord& model) const;
  bool Resident(const ModelRecord& model) const;
  void SetLease(ModelRecord& model, const Bytes& target, Motion motion, bool pause = false,
                uint64_t host_kv = 0);
  void ShrinkTo(ModelRecord& model, const Bytes& target, bool end_worker, Nanos drain);
  void WatchLease(ModelRecord& model, std::optional<uint64_t> excused = {});
  enum class HostRoom { kThere, kComing, kNone };
  HostRoom ReserveForPause(ModelRecord& model);
  void ArmDrain(ModelRecord& model, Nanos delay);
  void TryPause(ModelRecord& model);
  size_t Running(const ModelRecord& model) const;
  bool GetsOn(const ModelRecord& model) const;
  void GiveUpDrain(ModelRecord& model);
  void GiveBack(ModelRecord& victim);
  std::vector<std::string> WhyNotPaused(size_t device) const;
  void OnLease(ModelRecord& model, const v1::LeaseStatus& status);
  void NoteLostKv(ModelRecord& model, const std::string& error);
  void PoolFailed(ModelRecord& model, const std::string& why);
  void OnShrunk(ModelRecord& model, const std::string& error);
  void NoteRate(ModelRecord& model);
  void OnGrown(ModelRecord& model, const std::string& error);
  void Sleep(ModelRecord& model);

  // router_drains.cc
  size_t Unfinished(const ModelRecord& model) const;
  std::set<RequestId> WhatDrains(const ModelRecord& model) const;
  Nanos MoreTime(const ModelRecord& model) const;
  Nanos TimeToFinish(const ModelRecord& model) const;

  // router_turns.cc
  SchedulerDevice DeviceView(size_t device) const;
  SchedulerModel ModelView(const ModelRecord& model) const;
  std::vector<SchedulerModel> ModelViews(size_t device) const;
  std::vector<Demand> Demands(size_t device) const;
  bool OnlyHopes(const ModelRecord& model) const;
  std::optional<Demand> DemandOf(const ModelRecord& model) const;
  bool WantsResidency(const ModelRecord& model) const;
  bool Prepared(const ModelRecord& model) const;
  bool Failing(const ModelRecord& model) const;
  Nanos FailsUntil(const ModelRecord& model) const;
  bool KeptOut(const ModelRecord& model) const;
  absl::Status NobodyGivesWay(const ModelRecord& model) const;
  absl::Status GivenUp(const ModelRecord& model) const;
  uint64_t KvInFlight(size_t device) const;
  uint64_t KvUsed(const ModelRecord& model) const;
  Nanos Present(size_t device) const;
  Nanos OthersTime(const ModelRecord& model, const std::vector<Demand>& demands) const;
  Nanos MaxWait(const ModelRecord& model) const;
  bool HeldUp(const ModelRecord& model, bool resident) const;
  void KeepMeter(ModelRecord& model);
  void BeginTurn(ModelRecord& model, uint64_t moved);
  Nanos BackOffUntil(const ModelRecord& model) const;
  absl::Status TriedTooLate(const ModelRecord& model, Nanos bound) const;
  Nanos BoundOfNew(const ModelRecord& model) const;
  Nanos HopelessUntil(const ModelRecord& model) const;
  absl::Status Hopeless(const ModelRecord& model) const;
  void PumpWaits(size_t device, const std::vector<Demand>& demands);
  bool LooksAgain(WaitClock& clock, std::optional<Nanos> due);
  void RefuseOverdue(ModelRecord& model, Nanos retry);
  void RefuseHopeless(ModelRecord& model);

  // router_swaps.cc
  void PumpDevice(size_t device);
  void RecheckAt(DeviceSlot& device, Nanos at);
  void NoteRoom(size_t device, const std::vector<SchedulerModel>& models);
  bool IsKeptOut(const ModelRecord& model, const std::vector<SchedulerModel>& models) const;
  bool RefuseKeptOut(size_t device);
  bool RefuseMisfits(size_t device);
  bool RefuseWithoutRoom(size_t device, const std::vector<SchedulerModel>& models,
                         const std::vector<Demand>& demands);
  void RefuseUnstarted(ModelRecord& model, const absl::Status& why);
  void StartSwap(DeviceSlot& device, Decision::Start start);
  void HurryDrains(size_t device, const std::vector<Demand>& demands);
  void AdvanceSwap(DeviceSlot& device, size_t index);
  void OpenDevice(DeviceSlot& device);
  bool Opens(const ModelRecord& model) const;
  bool MayOpen(const ModelRecord& model) const;
  bool WantsKv(const ModelRecord& model) const;
  void GrowPools(size_t index, const std::vector<SchedulerModel>& models);
  void ShrinkVictims(Swap& swap, const std::vector<Shrink>& shrinks, Nanos slack);
  void ApplyShrinks(const std::vector<Shrink>& shrinks, Nanos drain);
  void FinishSwap(DeviceSlot& device);
  void AbortSwap(DeviceSlot& device);
  bool Drains(const ModelRecord& model) const;
  bool ComesIn(const ModelRecord& model) const;
  bool VictimsDrain(const Swap& swap) const;
  void NoteForeign(DeviceSlot& device);
  bool StopsGrowth(const Demand& demand) const;
  absl::Status Outlasted(const std::string& model) const;
  void FailDemand(ModelRecord& model, const absl::Status& status);

  // router_loads.cc
  bool LoadsLater(const ModelRecord& model) const;
  bool FailsToLoad(const ModelRecord& model) const;
  void LoadFailed(ModelRecord& model, const absl::Status& why);
  void TryLoadLater(ModelRecord& model, int nth, const absl::Status& why);
  void MasterFailed(ModelRecord& model, uint64_t master_id, const absl::Status& why);
  void GrowthFailed(ModelRecord& model, const Shortage& shortage, const absl::Status& why);
  void ForgiveForStrangers(DeviceSlot& device);
  void NoteLoaded(ModelRecord& model);
  void AwaitSpared(const Demand& demand);
  void BeginTrial(ModelRecord& model);
  void PumpTrial(ModelRecord& model);

  // router_switches.cc
  SwitchOp* FindSwitch(const std::string& model);
  const SwitchOp* FindSwitch(const std::string& model) const;
  SwitchOp& QueueSwitch(ModelRecord& model);
  void PumpSwitches();
  v1::SwitchEvent EventOf(const SwitchOp& op) const;
  void Tell(SwitchOp& op, v1::SwitchEvent event);
  void ReadySwitch(const std::string& model, bool brought_in);
  void FailSwitch(const std::string& model, const absl::Status& status);

  // router_probes.cc
  bool Suspends(const ModelRecord& model) const;
  bool MayProbe(const ModelRecord& model) const;
  bool NothingAgainst(const ModelRecord& model) const;
  bool Proved(const ModelRecord& model) const;
  void PumpProbe(ModelRecord& model);
  void SendProbe(ModelRecord& model);
  void NoteUnseen(ModelRecord& model, uint64_t id, uint64_t bytes);
  void WatchLooks(ModelRecord& model);
  void NoteLook(ModelRecord& model, uint64_t id);
  bool QueuesForALook(const ModelRecord& model) const;
  void WatchProbe(ModelRecord& model);
  void LookAtProbe(ModelRecord& model, Nanos delay, Nanos again);
  void StopProbe(ModelRecord& model);
  void NoteProof(ModelRecord& model);
  void NoteFault(ModelRecord& model, const std::string& message);
  void OnProbeEvent(ModelRecord& model, const v1::GenerateEvent& event);
  void OnProbeAccepted(ModelRecord& model);
  void OnProbeRejected(ModelRecord& model, const v1::Rejected& rejected);
  void KillUnhealthy(ModelRecord& model, const std::string& reason);

  // router_catalog.cc
  absl::Status MayPin(const ModelRecord& model) const;
  absl::Status MayResize(const std::vector<Device>& devices,
                         const std::vector<ModelEntry>& catalog) const;
  void KeepUnplanned(std::vector<ModelEntry>& catalog, v1::ReloadConfigReply& reply) const;
  std::optional<PinnedModel> StaysPinned(const ModelEntry& entry) const;
  void BeginLeave(ModelRecord& model, Leave why);
  void PumpLeave(const std::string& name);
  void CompleteLeave(ModelRecord& model);

  // router_devices.cc
  void Resize(const std::vector<Device>& devices, v1::ReloadConfigReply& reply);
  void NoteFit(ModelRecord& model);
  void NoteBusy(ModelRecord& model, uint64_t busy_ns);
  void NoteGone(ModelRecord& model);
  v1::DeviceStatus DeviceStatusOf(const DeviceSlot& slot) const;
  void TellSample(const DeviceSample& sample, v1::DeviceStatus& status) const;
  void TellEnergy(const ModelRecord& model, v1::ModelStatus& status) const;

  // router_status.cc
  void PumpWatchers();
  void SendStatus(Watcher& watcher);
  void PumpHealth();
  void TellHealth(ModelRecord& model, bool serving);
  static std::string HealthService(const ModelRecord& model);
  v1::ModelState StateOf(const ModelRecord& model) const;
  Standing::Kind StandingOf(const ModelRecord& model) const;
  std::string ErrorOf(const ModelRecord& model, const std::string& no_room) const;
  std::map<std::string, std::string> NoRoomReasons() const;
  bool Serving(ModelRecord& model);

  RouterOptions options_;
  Ports ports_;
  State state_;
  bool dirty_ = false;           // something that decisions rest on has changed
  bool dirty_soon_ = false;      // ... which may wait for the others of this millisecond
  bool status_changed_ = false;  // something that status shows has changed
  bool pumping_ = false;
};

}  // namespace switchyard::supervisor
