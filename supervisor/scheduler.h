#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/bytes.h"
#include "supervisor/eviction.h"
#include "supervisor/ports.h"
#include "supervisor/turns.h"

// Decides which model comes in next on one device, and at whose cost. Pure: values in, values out.
// The router asks after everything that may change the answer, and does what it says. Who is first
// in line, and how long the others keep their place, is in turns.h; who gives what, in eviction.h.
namespace switchyard::supervisor {

// One model on the device, as far as scheduling goes.
struct SchedulerModel {
  Tenant tenant;             // `taboo` is the scheduler's own to set
  Bytes charge;              // the ledger's
  bool settled = true;       // nothing is in motion
  bool starved = false;      // resident, and sequences wait for KV
  bool ending = false;       // its worker is on its way out; the charge returns when it is reaped
  bool quarantined = false;  // ... but it cannot be reaped
  bool asked = false;        // requests wait that no worker has looked at: not a demand yet
  Work work;                 // what of its own it has to do
};

struct SchedulerDevice {
  std::string name;
  uint64_t capacity = 0;
  uint64_t reserve = 0;
  uint64_t foreign = 0;  // that strangers have kept for long enough to refuse anyone
  uint64_t free = 0;     // the ledger's
  uint64_t over = 0;     // the ledger's
};

enum class Verdict {
  kGo,       // apply the shrinks (perhaps none); when there is room, grow
  kWait,     // not yet: a least turn is not over, or bytes are in motion. Nobody overtakes
  kLater,    // not yet: others' work weighs more than its waiting. Others may overtake
  kBlocked,  // not before another model has had its turn: others may overtake
  kRefuse,   // never while things are as they are; see reason
};

struct SwapPlan {
  Verdict verdict = Verdict::kGo;
  std::vector<Shrink> shrinks;
  std::string reason;
  Nanos recheck_at = 0;    // kWait, kLater: ask again then at the latest; 0: an event will come
  bool outlasted = false;  // kBlocked: by sequences that have outlasted a drain
};

// Whether a master of `total` bytes, `done` of them filled in `elapsed`, will be complete so soon
// that its model may come in meanwhile, each chunk as soon as it was read. Not earlier: copying to
// the device is much faster than reading, so nothing is lost, and whoever has to go for it serves
// on while the disk is read.
bool FillEndsSoon(uint64_t done, uint64_t total, Nanos elapsed);

// What it takes to bring in one model.
SwapPlan PlanSwap(const SchedulerDevice& device, const std::vector<SchedulerModel>& models,
                  const Demand& demand, Nanos now);

// Which of `models`, in their order, could come in, were all others idle and at rest: pinned
// models, strangers and workers that cannot be ended leave them room.
std::vector<bool> HaveRoom(const SchedulerDevice& device,
                           const std::vector<SchedulerModel>& models);

// Whether `model`, whose workers have been failing, could come in though no resident model gives
// way to it, nor the one that `comes_in` ("": none).
bool HasRoomBesideResidents(const SchedulerDevice& device,
                            const std::vector<SchedulerModel>& models, const std::string& model,
                            const std::string& comes_in);

// The arithmetic for one of `models` that has none.
std::string NoRoomReason(const SchedulerDevice& device, const std::vector<SchedulerModel>& models,
                         const SchedulerModel& model);

struct Refused {
  std::string model;
  std::string reason;
};

// Who is refused, while things are as they are, because pinned models, strangers or workers that
// cannot be ended leave no room: every demand, and every model that is asked. True whether or not a
// swap is under way, whoever is prepared, and whatever runs.
std::vector<Refused> Refusals(const SchedulerDevice& device,
                              const std::vector<SchedulerModel>& models,
                              const std::vector<Demand>& demands);

struct Decision {
  struct Start {
    Demand demand;
    std::vector<Shrink> shrinks;
    Nanos slack = kNever;  // victims may drain for so long without anybody being late
  };
  std::optional<Start> start;
  std::vector<std::string> blocked;  // ready or not: another model must have its turn first
  std::vector<std::string> refused;  // switches that sequences block which outlasted a drain
  Nanos recheck_at = 0;
};

// The next swap, if one may start; no swap is running on the device. `demands`: without those that
// are refused.
Decision Decide(const SchedulerDevice& device, const std::vector<SchedulerModel>& models,
                std::vector<Demand> demands, Nanos now);

// The lease to ask for once there is room: the KV pool takes what is free, up to the useful size.
// `free` is beyond `charge`, what the model is charged already. nullopt if the smallest does not
// fit.
std::optional<Bytes> GrowTarget(const Needs& needs, const Bytes& charge, uint64_t free);

struct PoolGrowth {
  std::string model;
  Bytes target;
};

// Nobody wants to come in: which resident models' KV pools grow into what is free.
std::vector<PoolGrowth> PlanPools(const SchedulerDevice& device,
                                  const std::vector<SchedulerModel>& models);

// They find too little that is free to double: which idle models give KV that holds nothing,
// devices that were opened for nobody yet, and the weights of models that are not whole, as
// ChooseVictims takes them. The pools grow when these are back.
std::vector<Shrink> PlanPoolRoom(const SchedulerDevice& device,
                                 const std::vector<SchedulerModel>& models, Nanos now);

// Strangers took memory: who gives how much, as far as anyone can. Not the model that `comes_in`,
// if any: its swap sees for itself whether there is room.
std::vector<Shrink> PlanRelief(const SchedulerDevice& device,
                               const std::vector<SchedulerModel>& models,
                               const std::string& comes_in, Nanos now);

}  // namespace switchyard::supervisor
