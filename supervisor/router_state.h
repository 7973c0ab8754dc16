#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/catalog.h"
#include "supervisor/energy.h"
#include "supervisor/host_share.h"
#include "supervisor/ledger.h"
#include "supervisor/probe.h"
#include "supervisor/rate_meter.h"
#include "supervisor/router.h"
#include "supervisor/scheduler.h"
#include "supervisor/wait_meter.h"

// What the router knows, as plain structs. Only the router's own files include this.
namespace switchyard::supervisor {

// One timer of one owner; stops with it. Not movable: the timer points at it.
class Alarm {
 public:
  explicit Alarm(Timers* timers) : timers_(timers) {}
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;
  ~Alarm() { Clear(); }

  void Set(Nanos delay, std::function<void()> fire) {
    Clear();
    id_ = timers_->Start(delay, [this, fire = std::move(fire)] {
      id_.reset();
      auto run = fire;  // `fire` may end the owner of this alarm
      run();
    });
  }
  // Armed until what this returns is called, which runs `fire`; once it is set anew or cleared,
  // that does nothing.
  std::function<void()> Await(std::function<void()> fire) {
    Clear();
    awaited_ = std::make_shared<bool>();
    return [this, mine = std::weak_ptr(awaited_), fire = std::move(fire)] {
      if (mine.expired()) return;
      awaited_.reset();
      fire();
    };
  }
  void Clear() {
    if (id_) timers_->Stop(*id_);
    id_.reset();
    awaited_.reset();
  }
  bool armed() const { return id_.has_value() || awaited_ != nullptr; }

 private:
  Timers* timers_;
  std::optional<Timers::Id> id_;
  std::shared_ptr<bool> awaited_;  // what is awaited; null: nothing
};

struct Request {
  enum class Stage {
    kUnsent,    // its worker does not answer yet, or has enough to look at
    kSent,      // the worker looks at it
    kAccepted,  // valid; waits in the worker
    kRunning,   // has KV on the device
    kPaused,    // has KV in host memory
  };
  explicit Request(Timers* timers) : deadline_alarm(timers), sink_alarm(timers) {}

  RequestId id = 0;
  std::string model;
  v1::GenerateRequest request;  // emptied once it has started: it is never sent again
  std::shared_ptr<GenerateSink> sink;
  Stage stage = Stage::kUnsent;
  Nanos deadline = 0;
  Nanos arrived = 0;
  Nanos sent_at = 0;
  Nanos accepted_at = 0;
  Nanos resident_at = 0;    // when its model was there for it; 0: not yet
  Nanos waiting_since = 0;  // when this wait began: its arrival, or when it was paused
  Nanos meter_at = 0;       // where its model's WaitMeter stood then
  int32_t priority = 0;
  uint64_t tokens_left = 0;  // that it may still get, at most
  bool resubmitted = false;  // one lost worker is forgiven
  bool told_waiting = false;
  bool has_start = false;   // the client has the prompt's part
  bool has_tokens = false;  // the client has output
  bool suspended = false;
  Nanos suspended_at = 0;
  Alarm deadline_alarm;
  Alarm sink_alarm;
};

// The requests and calls, cancelled ones too, that a worker has been sent and has not looked at: it
// holds them, or whoever brings them to it.
class Unseen {
 public:
  void insert(uint64_t id, uint64_t bytes, Nanos now) {
    if (!items_.emplace(id, Item{bytes, sent_}).second) return;
    if (order_.empty()) first_since_ = now;
    order_.emplace(sent_++, id);
    bytes_ += bytes;
  }
  // Whether it was among them.
  bool erase(uint64_t id, Nanos now) {
    const auto found = items_.find(id);
    if (found == items_.end()) return false;
    if (found->second.place == order_.begin()->first) first_since_ = now;
    bytes_ -= found->second.bytes;
    order_.erase(found->second.place);
    items_.erase(found);
    return true;
  }
  void clear() {
    items_.clear();
    order_.clear();
    bytes_ = 0;
  }
  bool empty() const { return items_.empty(); }
  uint64_t bytes() const { return bytes_; }
  // Since when the one that has been there for longest has been that. Not if empty.
  Nanos first_since() const { return first_since_; }

 private:
  struct Item {
    uint64_t bytes;
    uint64_t place;
  };
  std::map<uint64_t, Item> items_;
  std::map<uint64_t, uint64_t> order_;  // by place, as they were sent
  uint64_t sent_ = 0;
  uint64_t bytes_ = 0;
  Nanos first_since_ = 0;
};

// A Tokenize or Detokenize on its way.
struct Call {
  std::string model;
  v1::ToWorker message;
  std::function<void(absl::Status, const v1::FromWorker*)> reply;
  bool resent = false;
};

struct WorkerSlot {
  enum class Phase { kNone, kStarting, kReady, kEnding };
  explicit WorkerSlot(Timers* timers) : watch(timers), look_watch(timers), relaunch(timers) {}

  Phase phase = Phase::kNone;
  Incarnation id = 0;
  std::unique_ptr<WorkerPort> port;
  std::string image_key;  // of the checkpoint as it found it
  Nanos launched_at = 0;
  Nanos ready_at = 0;
  bool planned_end = false;    // we asked it to end: no failure
  bool quarantined = false;    // does not die
  bool spoke = false;          // it has given a sign of life
  bool start_overdue = false;  // no Hello within kLongestStart, and that was seen once
  std::string kill_reason;
  Unseen looks;
  Nanos looked_at = 0;  // the last time that it said so
  v1::Heartbeat heartbeat;
  StepWatch step_watch;
  bool starved = false;  // sequences wait though the model is resident
  uint32_t running = 0;  // sequences, as last told
  uint32_t paused = 0;
  uint64_t host_kv = 0;  // bytes of host memory that these hold, as last told
  Nanos stepped_at = 0;  // when a heartbeat told of a step more, the last time
  Alarm watch;           // the deadline of the phase
  Alarm look_watch;      // whether it looks at what it is sent is to be judged
  Alarm relaunch;        // the end of the back-off
};

struct FailureLog {
  int in_a_row = 0;   // of workers, with no request finished in between
  int loads = 0;      // that failed, since it was resident last
  int shortages = 0;  // of those for which the host had no memory, which are not counted: likewise
  int delays = 0;     // what the back-off has grown by; a finished request does not take it back
  int starved = 0;    // tries in a row that we had no descriptors or memory for: no failures
  int silent_starts = 0;  // workers in a row that were given up without a sign of life
  int stuck_fills = 0;    // of its master, in a row, that got nowhere
  int stuck_growths = 0;  // of its weights on the device: a master that is there says nothing of it
  bool failed = false;    // given up, but for a probe now and then, until an operator asks again
  Nanos trial_since = 0;
  bool trial = false;         // such a probe, of a model that could not be loaded: see PumpTrial
  bool stands = false;        // `last` is what is wrong now
  Nanos not_before = 0;       // of the next worker
  Nanos load_not_before = 0;  // of the next try to load it
  Nanos last_at = 0;
  std::string last;
  uint32_t restarts = 0;

  int Count() const { return in_a_row + loads; }
  bool Unloaded() const { return loads > 0 || shortages > 0; }  // at the last try
  void Note(std::string what, Nanos now) {
    last = std::move(what);
    last_at = now;
    stands = true;
  }
  // An operator asks: everything is tried again, at once.
  void Forgive(Nanos now) {
    in_a_row = delays = starved = silent_starts = stuck_fills = stuck_growths = 0;
    failed = trial = false;
    not_before = now;
    ForgiveLoads();
  }
  void ForgiveLoads() {
    loads = shortages = 0;
    load_not_before = 0;
  }
};

struct MasterSlot {
  enum class Phase { kNone, kFilling, kComplete, kDropping };
  explicit MasterSlot(Timers* timers) : watch(timers) {}

  Phase phase = Phase::kNone;
  uint64_t id = 0;
  std::string image_key;  // complete: what it is of
  bool sent = false;      // the live worker has been told of it
  bool attached = false;  // the live worker can copy what is there of it
  uint64_t done = 0;
  Nanos filling_since = 0;
  bool soon = false;      // filling, and complete soon: see FillEndsSoon
  bool prefetch = false;  // shall be filled in the background
  Nanos complete_since = 0;
  RateMeter fill{1e9};  // from disk; a guess until it has been filled once
  std::map<RequestId, Reply<v1::PrefetchReply>> waiting;
  Alarm watch;
};

// What a growth that failed leaves open: whether strangers had taken what it was to have.
struct Shortage {
  bool over = false;           // they had
  uint64_t foreign_bound = 0;  // they had, if it turns out that they have more than that
};

struct LeaseSlot {
  enum class Motion { kRest, kGrow, kShrink };
  explicit LeaseSlot(Timers* timers) : drain(timers), watch(timers) {}

  Motion motion = Motion::kRest;
  uint64_t epoch = 0;
  Bytes before;                 // the lease before this motion
  Nanos since = 0;              // when it began
  uint64_t tokens_before = 0;   // that the model had made by then
  bool brings_weights = false;  // this growth: a step may wait for them
  Nanos weights_at = 0;         // when the last that did settled
  uint64_t copies_from = 0;     // the master that this growth follows
  // That failed, or of which a growth did: one takes the other with it, and either may be heard of
  // first. Until the next growth.
  std::optional<uint64_t> failed_master;
  // Of one that has failed: had strangers more than that, it was their fault.
  std::optional<uint64_t> foreign_bound;
  bool host_short = false;      // the worker could not follow for want of the host's memory
  bool reserved = false;        // host memory is kept for its sequences until it is at rest
  uint64_t reserve_wanted = 0;  // as much
  bool pausing = false;         // PAUSE has been sent
  bool pause_wanted = false;    // the drain is over, and host memory is being made free
  bool ends_worker = false;     // once it is at rest, the worker ends for its fixed bytes
  Alarm drain;                  // then sequences are paused
  Nanos drain_until = 0;        // when that was or is tried first
  Alarm watch;                  // then the worker is taken to be stuck

  int pool_failures = 0;     // of a resident model's pool, to grow or to keep what it got, in a row
  Nanos pool_failed_at = 0;  // the last one
  Nanos pool_not_before = 0;  // of the next growth

  // Sequences that outlasted a drain and could not be paused. As long as any of them runs, or is
  // paused by its worker's own choice, nobody waits for them again.
  std::set<RequestId> outlasting;
  bool outlast_worker = false;  // they could have been paused, but not without their worker
  std::string outlast_why;
};

// How long a model's requests have waited for its turn, and may.
struct WaitClock {
  explicit WaitClock(Timers* timers) : alarm(timers) {}

  WaitMeter meter;
  Nanos resident_since = 0;  // 0: it is not
  Nanos anew_at = 0;         // when it had its last turn: all who still wait began to wait then
  Nanos alarm_at = 0;
  Alarm alarm;        // a request is overdue
  Nanos look_at = 0;  // when that is to be seen again, since it was seen late; 0: it was not
};

// How the model proves that work gets done: see probe.h.
struct ProbeSlot {
  explicit ProbeSlot(Timers* timers) : alarm(timers) {}

  RequestId id = 0;       // of the one that is under way; 0: none
  bool accepted = false;  // it is the engine's turn
  Nanos watched_at = 0;   // from when on it is judged
  Nanos unanswered = 0;   // how long those were under way that were stopped, since the last proof
  uint64_t steps = 0;     // that the worker had finished when it was last looked at
  uint64_t sent = 0;      // probes so far
  Nanos proved_at = 0;    // its last token, for whomever
  Unproved unproved;
  Nanos not_before = 0;  // of the next one
  std::string doubt;     // why it is not to be counted on; empty: it is
  bool damaged = false;  // the doubt is of its weights, which another worker has as well
  bool wanted = false;   // a request met damage: whether that is all the weights is to be seen
  Nanos alarm_at = 0;
  Alarm alarm;  // a probe is due, or is to be judged

  void Trust() {
    doubt.clear();
    damaged = wanted = false;
  }
};

// Why a model is on its way out.
enum class Leave { kNo, kUnload, kReplace, kRemove };

struct ModelRecord {
  ModelRecord(ModelEntry e, Timers* timers)
      : entry(std::move(e)),
        worker(timers),
        master(timers),
        lease(timers),
        clock(timers),
        probe(timers),
        load_retry(timers),
        leave_deadline(timers),
        idle(timers),
        hopeful(timers) {}

  const std::string& name() const { return entry.model.name(); }

  ModelEntry entry;
  v1::Plan plan;        // the entry's, or as its last worker knows it better
  absl::Status misfit;  // why that one does not fit, though the entry's does
  Needs needs;          // of `plan`
  HostShare host;       // its master, or the ring that stands in for one
  size_t device = 0;
  bool pinned = false;
  bool launch_wanted = false;  // a worker without lease is cheap, and answers at once
  bool without_room = false;   // not resident, and could not become so now: see HaveRoom
  bool kept_out = false;       // not resident, and could come in, were it not for its failures
  bool blocked = false;        // ready or not: another model must have its turn first
  WorkerSlot worker;
  FailureLog failures;
  MasterSlot master;
  LeaseSlot lease;
  WaitClock clock;
  ProbeSlot probe;
  Alarm load_retry;           // one that could not be loaded is looked at again
  bool told_no_room = false;  // to the log, of a pinned one, since it was resident last

  // Requests: all, those that wait for a turn in the worker, in their order, and those that run.
  using WaitKey = std::tuple<int32_t, Nanos, RequestId>;
  std::set<RequestId> requests;
  std::map<int32_t, size_t> priorities;  // of them
  std::set<RequestId> unsent;
  std::set<WaitKey> waiting;
  uint64_t since_sum = 0;  // of those; wraps, and so do sums made with it
  WaitMeter::Line ages;    // all that do not run, by the start of their wait on the clock's meter
  size_t running = 0;
  size_t paused = 0;
  std::set<uint64_t> calls;
  std::set<uint64_t> unsent_calls;
  Nanos turn_until = 0;   // of its least turn
  bool switched = false;  // the turn began with a switch, and no request has come yet

  Leave leave = Leave::kNo;
  std::optional<ModelEntry> replacement;
  std::map<RequestId, Reply<v1::UnloadReply>> unload_replies;
  bool leave_overdue = false;
  Alarm leave_deadline;

  Alarm idle;
  Nanos last_use = 0;
  bool opened = false;  // a worker got its fixed bytes for its master's sake, since it was resident
  std::optional<bool> told_serving;  // to health
  Nanos hopeful_at = 0;
  Alarm hopeful;       // a request may be accepted again: see HopelessUntil
  uint64_t loads = 0;  // times that a swap made it resident
  uint64_t finished = 0;
  uint64_t tokens = 0;
  uint64_t prompt_tokens = 0;
  double joules = 0;
};

// One operator's wish, shared by all who asked for the same model.
struct SwitchOp {
  std::string model;
  uint64_t order = 0;
  uint64_t default_order = 0;  // of the last Switch (not Load) among them; 0: none
  bool asked = false;          // by a client, who may have left; else by a pin
  Nanos since = 0;             // when it was asked for first
  std::map<RequestId, std::shared_ptr<SwitchSink>> sinks;
  bool retried = false;
  bool filled_master = false;
  v1::SwitchEvent last;
  std::string subphase;  // rates are over this
  Nanos subphase_since = 0;
  uint64_t subphase_base = 0;
};

struct Swap {
  std::string model;
  Demand demand;
  std::set<std::string> victims;
  bool growing = false;
  Bytes before;
  Bytes target;
};

struct DeviceSlot {
  DeviceSlot(Device device, Timers* timers)
      : ledger(std::move(device)), foreign_alarm(timers), recheck(timers) {}
  DeviceLedger ledger;
  uint64_t foreign_kept = 0;   // by strangers, for long enough to refuse anyone for their sake
  uint64_t foreign_least = 0;  // while `foreign_alarm` is armed: the least since it was
  Alarm foreign_alarm;         // then it is `foreign_kept`
  RateMeter copy{10e9};        // from masters to the device; a guess until something was copied
  std::optional<DeviceSample> sample;  // the last one
  EnergyMeter meter;
  EnergyShares shares;
  std::optional<Swap> swap;
  bool wanted = false;  // a model wants to come in, or does, as of the last decision
  Nanos recheck_at = 0;
  Alarm recheck;  // a decision may come out differently by then
};

struct Watcher {
  Watcher(std::shared_ptr<StatusSink> s, Timers* timers) : sink(std::move(s)), alarm(timers) {}
  std::shared_ptr<StatusSink> sink;
  Nanos interval = 0;
  Nanos last_sent = 0;
  Alarm alarm;
};

struct State {
  explicit State(uint64_t host_budget, Timers* timers)
      : host(host_budget), decide_soon(timers), shutdown_alarm(timers) {}

  std::vector<std::unique_ptr<DeviceSlot>> devices;
  HostLedger host;
  std::vector<std::string> order;  // of the catalog, then who is on its way out
  std::map<std::string, std::unique_ptr<ModelRecord>> models;
  std::map<RequestId, std::unique_ptr<Request>> requests;
  std::set<std::pair<Nanos, RequestId>> suspended;  // since when
  std::map<uint64_t, Call> calls;
  std::map<Incarnation, std::string> incarnations;
  std::list<SwitchOp> switches;
  std::list<std::unique_ptr<Watcher>> watchers;
  std::optional<bool> told_inference;  // to health
  std::optional<bool> told_control;
  std::string default_model;
  uint64_t default_order = 0;
  std::string reload_error;  // of the last reload; empty: it was good
  Nanos reload_error_at = 0;
  uint64_t next_id = 1;
  Incarnation next_incarnation = 1;
  uint64_t next_order = 1;
  Nanos started_at = 0;

  Alarm decide_soon;  // a resident model's work has changed

  bool draining = false;
  bool ending = false;       // the grace is over, workers are told to end
  bool end_overdue = false;  // they had the time for that
  std::function<void()> drained;
  Alarm shutdown_alarm;  // the end of the grace, then of the workers' time
};

}  // namespace switchyard::supervisor
