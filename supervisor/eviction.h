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
  bool pinned = false;
  bool active = false;  // has sequences on the device
  bool paused = false;  // has sequences in host memory: its worker must not end
  bool taboo = false;   // not now: its lease is in motion, or its turn is not over
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
//   1. KV beyond the smallest pool, of idle models, least recently used first, pinned ones last:
//      they stay resident, so nothing is lost but the room to grow.
//   2. Least recently used first, never pinned: KV beyond the smallest pool if that is enough, else
//      the whole pool (without its weights a model cannot use it), then as many chunks as needed
//      from the end of the image.
//   3. The fixed bytes of models that have given everything else, by ending their workers.
Eviction ChooseVictims(std::vector<Tenant> tenants, uint64_t needed);

// The most that ChooseVictims could ever give, were every tenant idle and settled.
uint64_t Reclaimable(const std::vector<Tenant>& tenants);

}  // namespace switchyard::supervisor
