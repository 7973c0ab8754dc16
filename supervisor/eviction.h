#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/bytes.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// A lease as a possible source of bytes. A plain value: eviction knows nothing else.
struct Tenant {
  std::string model;
  Needs needs;
  Bytes lease;  // as granted, settled
  Nanos last_use = 0;
  double cost = 1;       // of bringing a byte back, against that of others': of a model that has no
                         // master it must be read from disk
  uint64_t kv_used = 0;  // bytes of the pool that sequences are in
  bool pinned = false;
  bool active = false;  // has sequences on the device
  bool paused = false;  // has sequences that are paused: its worker must not end before they come
                        // back, which those of a whole lease do while it drains
  // Has sequences that outlasted a drain, and could not be paused. Until they have ended,
  bool worker_stays = false;  // its worker must not end;
  bool stays = false;         // nor may it cease to be whole.
  bool unused = false;        // has its fixed bytes for its master's sake alone, and may lose them
  bool taboo = false;         // not now: its lease is in motion, or its turn is not over
};

// What one victim is to become.
struct Shrink {
  std::string model;
  Bytes target;
  bool drain = false;       // has sequences that must finish or pause first
  bool end_worker = false;  // its fixed bytes are wanted too: they return when it is reaped
};

struct Eviction {
  std::vector<Shrink> shrinks;
  uint64_t freed = 0;
  bool enough = false;
};

// Chooses who gives `needed` bytes:
//   1. KV beyond the smallest pool that holds nothing, of idle models, then of active ones; pinned
//      ones last. They stay resident, so nothing is lost but the room to grow.
//   2. The fixed bytes of models that have not been there since they got them, if that is enough.
//   3. Idle models before active ones, the least worth first (below), never pinned: KV beyond the
//      smallest pool if that is enough, else the whole pool (without its weights a model cannot use
//      it), then as many chunks as needed from the end of the image.
//   4. The fixed bytes of models that have given everything else, by ending their workers. What is
//      paused would be lost with its worker, so all that have begun must finish for that.
//
// What a byte is worth: what it costs to bring it back, times how likely that is soon, for which
// stands 1 / (now - last use): cost / age. Among models of equal cost the least recently used
// comes first; one whose bytes cost ten times as much counts as used ten times as recently.
Eviction ChooseVictims(std::vector<Tenant> tenants, uint64_t needed, Nanos now);

// The most that ChooseVictims could ever take of the tenant, were it idle and settled.
uint64_t Reclaimable(const Tenant& tenant);

// A master that nobody needs now, as a possible source of host memory.
struct SpareMaster {
  std::string model;
  uint64_t bytes = 0;
  Nanos last_use = 0;
  double cost = 1;  // of reading a byte again, against that of others'
  bool pinned = false;
};

// Which masters to drop for `needed` bytes: the least worth first, as above, pinned models' last;
// none that is not needed in the end. All of them if they are not enough.
std::vector<std::string> ChooseMasters(std::vector<SpareMaster> masters, uint64_t needed,
                                       Nanos now);

}  // namespace switchyard::supervisor
