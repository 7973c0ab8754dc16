#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "supervisor/bytes.h"
#include "supervisor/ports.h"
#include "tests/support/fake_timers.h"

namespace switchyard::supervisor {

// How badly things go, as probabilities. All zero: a perfect world.
struct Faults {
  double launch_fails = 0;
  double starves = 0;  // we have no descriptors, for a worker or a master
  double dies_at_start = 0;
  double hangs_at_launch = 0;  // before its first sign of life
  double hangs_at_start = 0;   // after it, before Hello
  double dies_at_message = 0;  // at each command
  double dies_at_step = 0;
  double hangs = 0;       // at each command: never answers again, no heartbeat
  double no_memfd = 0;    // for a master
  double send_fails = 0;  // of a master's descriptor to a worker
  double fill_fails = 0;
  double stalls = 0;  // a fill or a growth gets nowhere any more, but there are heartbeats
  double grow_fails = 0;
  double slow_ack = 0;  // answers after seconds, not milliseconds
  double deaf = 0;      // from its start: see Deafen
  double sticks = 0;    // at one request or call: see StickAtNext
  double refuses_request = 0;
  double loses_kv = 0;      // at each step: see LoseKv
  double lacks_blocks = 0;  // at each sequence's step: it is paused by its worker's own choice
  double damages = 0;       // what a request is computed with: its logits are not numbers
  double unkillable = 0;    // takes 25 s to be reaped
  double checkpoint_changes = 0;  // in secret, when a worker starts
};

struct WorldRules {
  Faults faults;
  Nanos latency = kMillisecond;          // of a message, at most
  Nanos step = 10 * kMillisecond;        // of one engine step, at most
  Nanos first_sign = 30 * kMillisecond;  // of life, at most
  Nanos start = 300 * kMillisecond;      // until Hello from there, at most
  uint32_t max_sequences = 4;
  uint32_t prompt_steps = 0;         // before the one with the first token
  Nanos fills = 200 * kMillisecond;  // a third of a master, at most
  Nanos frees = 50 * kMillisecond;   // the memory of a master that is closed
  Nanos validates = 0;               // looks so long at each request and call, one after the other
  uint64_t more_fixed = 0;           // that a worker asks for beyond its plan
  double bytes_per_second = 0;       // of a growing lease; 0: as fast as it is acknowledged
  bool launches_ahead = false;  // as on a GPU: who is paused is told a last token by the same event
  bool tells_early = false;     // of its last weights as held, before they have been copied
};

class FakeWorld;

// A worker process that obeys worker.proto, as far as the supervisor can see.
class FakeWorker {
 public:
  FakeWorker(FakeWorld* world, const LaunchSpec& spec);

  void OnCommand(const v1::ToWorker& message);
  void Terminate(bool force);

  const std::string& model() const { return spec_.model.name(); }
  const Bytes& held() const { return held_; }
  uint64_t paused_bytes() const;
  bool alive() const { return !gone_; }
  bool wedged() const { return wedged_; }
  Incarnation incarnation() const { return spec_.incarnation; }
  size_t sequences() const { return sequences_.size(); }
  Nanos busy() const { return busy_; }
  void Die(const std::string& how);
  // It says nothing more, and does not end by itself.
  void Hang();
  // Nothing has been heard of it for this long, and nobody does anything about it; 0: not so.
  Nanos silence() const;
  bool spoke() const { return spoke_; }
  // It beats, runs steps and follows its lease, and looks at no request or call any more.
  void Deafen() { deaf_ = true; }
  bool deaf() const { return deaf_; }
  // It beats, and never lets go of a master that it is told to drop.
  void Cling() { clings_ = true; }
  // It never comes to the end of the next one that it looks at, and looks at those behind it.
  void StickAtNext() { sticks_at_next_ = true; }
  // For so long it has had something to look at since that is still wanted, and nobody does
  // anything about it; 0: not so.
  Nanos deafness() const;
  void Wedge() { wedged_ = true; }  // it lives, and runs no step any more
  void Break() { broken_ = true; }  // every step fails, as on a GPU with a context that is ruined
  // Of its pool it could not take more than this when it was needed.
  void LoseKv(uint64_t left);
  // One step that takes this long, as predicted; what it does for its lease it tells between steps.
  void StepFor(Nanos length);
  void Unwedge() {
    wedged_ = false;
    Wake();
  }

 private:
  struct Sequence {
    enum class State { kWaiting, kRunning, kPaused } state = State::kWaiting;
    uint32_t prompt_left = 0;  // steps
    uint32_t tokens_left = 0;
    bool kept = false;  // paused, with its KV in host memory; else that is computed again
    Nanos came = 0;
    Nanos began = 0;
    bool begun = false;
    bool suspended = false;
    bool damaged = false;  // its logits alone are not numbers: it has a damaged token
  };

  void After(Nanos delay, std::function<void()> what);
  void Reply(v1::FromWorker message);
  void Speak();
  void Start();
  void Beat();
  void Exit(Nanos delay);
  void UseMaster(const v1::UseMaster& use);
  void Fill(uint64_t id, uint64_t done);
  bool FillFails(uint64_t done);
  bool Finishes() const;
  bool GrowthFails();
  void SendMaster(uint64_t id, v1::MasterStatus::State state, uint64_t done, const char* error);
  void SetLease(const v1::SetLease& set);
  void Follow();
  void PauseAll();
  bool Pause(Sequence& sequence, uint64_t host_limit);
  void TellLease(bool settled, const char* error);
  void Look(uint64_t id, std::function<void()> then);
  void Submit(const v1::Submit& submit);
  void Wake();
  void Step(Nanos took);
  void Reject(uint64_t id, absl::StatusCode code, const char* why);
  size_t Count(Sequence::State state) const;
  uint64_t NextPiece() const;
  bool Whole(const Bytes& lease) const { return needs_.Whole(lease); }

  FakeWorld* world_;
  LaunchSpec spec_;
  Needs needs_;
  std::shared_ptr<bool> life_ = std::make_shared<bool>(true);  // stops what is due after its end
  bool spoke_ = false;
  bool ready_ = false;
  bool hung_ = false;
  Nanos silent_since_ = 0;
  bool deaf_ = false;
  bool sticks_at_next_ = false;
  std::map<uint64_t, Nanos> unheard_;  // what it has not looked at for that, since when
  bool wedged_ = false;
  bool broken_ = false;
  bool clings_ = false;
  bool gone_ = false;
  bool exiting_ = false;
  Nanos last_reply_ = 0;
  Nanos validates_until_ = 0;
  std::set<uint64_t> cancelled_;  // before they were looked at
  uint64_t master_ = 0;
  uint64_t filled_ = 0;  // of the master
  bool streamed_ = false;
  bool lost_ = false;  // filling it failed: the router may not have heard of that yet
  v1::SetLease lease_;
  uint64_t host_limit_ = 0;  // of paused KV: what was granted, and once it has settled what is held
  Bytes target_;
  Bytes held_;
  bool settled_ = true;
  bool following_ = false;
  bool stepping_ = false;
  Nanos step_from_ = 0;  // of the one under way; 0: there is none
  Nanos step_takes_ = 0;
  Nanos long_step_from_ = 0;
  Nanos long_step_until_ = 0;
  Nanos busy_ = 0;  // all steps so far
  uint64_t steps_ = 0;
  Nanos grows_since_ = 0;
  Nanos let_go_at_ = 0;  // of weights, the last time
  std::map<uint64_t, Sequence> sequences_;
};

// Everything outside the router: processes, masters, health; seeded.
class FakeWorld : public WorkerLauncher, public MasterStore, public HealthPort {
 public:
  FakeWorld(uint64_t seed, WorldRules rules) : rules(rules), random_(seed) {}

  // WorkerLauncher, MasterStore, HealthPort.
  absl::StatusOr<std::unique_ptr<WorkerPort>> Launch(const LaunchSpec& spec) override;
  absl::StatusOr<uint64_t> Create(const std::string& model, uint64_t bytes) override;
  void Keep(uint64_t master_id, const std::string& model, const std::string& image_key) override;
  void Close(uint64_t master_id) override;
  void Leave(uint64_t master_id) override;
  void SetServing(const std::string& service, bool serving) override { health[service] = serving; }
  void Remove(const std::string& service) override { health.erase(service); }

  bool Chance(double probability);
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  Nanos Delay(Nanos most) { return 1 + static_cast<Nanos>(Below(static_cast<uint64_t>(most))); }

  // A complete master of a supervisor before.
  uint64_t LeftOver(uint64_t bytes);
  // The live worker of a model, or nullptr.
  FakeWorker* WorkerOf(const std::string& model);
  // Bytes really held on a device, by all workers that have not been reaped.
  uint64_t HeldOn(const std::string& device) const;
  uint64_t PausedBytes() const;

  WorldRules rules;
  FakeTimers timers;
  std::map<std::string, bool> health;
  std::map<uint64_t, uint64_t> masters;           // id -> bytes, until its memory is free
  std::set<uint64_t> closed;                      // of those
  std::map<uint64_t, bool> filled;                // id -> sealed
  std::map<uint64_t, std::string> kept;           // id -> image_key, when it was
  std::map<std::string, std::string> image_keys;  // that workers find, if not the plan's
  std::set<std::string> damaged;                  // models whose logits are not numbers
  std::set<std::string> unreadable;               // whose checkpoints end too early
  std::set<std::string> unloadable;               // of whose leases none can grow
  std::set<std::string> host_short;               // for which the host has no memory
  std::map<std::string, uint64_t> failed_loads;   // of those
  std::map<Incarnation, std::shared_ptr<FakeWorker>> workers;  // not reaped yet
  std::map<Incarnation, std::string> devices;
  std::map<std::string, int> silent_starts;  // of each model, since one was heard
  uint64_t launches = 0;
  uint64_t fills = 0;
  uint64_t grows = 0;
  uint64_t pauses = 0;
  uint64_t submits = 0;
  uint64_t samples = 0;  // of the devices that were asked for
  uint64_t unseen = 0;   // bytes of requests that were sent, and no live worker has looked at
  uint64_t most_unseen = 0;
  Nanos swapping = 0;  // time that leases of weights took to grow
  std::function<void(Incarnation, const v1::ToWorker&)> on_sent;  // it has not arrived yet
  std::function<void(Incarnation)> on_terminate;
  std::function<void(Incarnation, const v1::FromWorker&)> on_message;
  std::function<void(Incarnation, const WorkerExit&)> on_gone;
  std::function<void(uint64_t)> on_freed;
  std::function<void(const std::string&)> on_violation;  // of what we promise to workers

 private:
  std::mt19937_64 random_;
  uint64_t next_master_ = 1;
};

}  // namespace switchyard::supervisor
