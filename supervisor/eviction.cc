#include "supervisor/eviction.h"

#include <algorithm>

#include "common/checked.h"

namespace switchyard::supervisor {
namespace {

uint64_t Missing(const Eviction& eviction, uint64_t needed) {
  return eviction.freed >= needed ? 0 : needed - eviction.freed;
}

// Notes that `tenant` shrinks to `target`, once for each victim.
void Take(const Tenant& tenant, const Bytes& target, Eviction& eviction) {
  auto it = std::find_if(eviction.shrinks.begin(), eviction.shrinks.end(),
                         [&](const Shrink& s) { return s.model == tenant.model; });
  if (it == eviction.shrinks.end()) {
    it = eviction.shrinks.insert(it, {tenant.model, tenant.lease, false, false});
  }
  eviction.freed += it->target.total() - target.total();
  it->target = target;
  it->drain = tenant.active && !tenant.needs.Whole(target);
}

// The lease of `tenant` after what the earlier passes took.
Bytes Current(const Tenant& tenant, const Eviction& eviction) {
  for (const Shrink& shrink : eviction.shrinks) {
    if (shrink.model == tenant.model) return shrink.target;
  }
  return tenant.lease;
}

// `lease` with its KV pool reduced by whole granules to give up to `wanted`, but still whole.
Bytes WithoutSpareKv(const Tenant& tenant, Bytes lease, uint64_t wanted) {
  const Needs& needs = tenant.needs;
  if (!needs.Whole(lease)) return lease;
  const uint64_t spare = lease.kv - needs.kv_smallest;
  const uint64_t rounded =
      RoundUp(std::min(wanted, spare), std::max<uint64_t>(needs.kv_granule, 1));
  lease.kv -= std::min(rounded, spare);
  return lease;
}

// `lease` without its pool, and without the chunks at its end that `wanted` still asks for.
Bytes WithoutChunks(const Tenant& tenant, Bytes lease, uint64_t wanted) {
  const uint64_t pool = lease.kv;
  lease.kv = 0;
  if (wanted <= pool) return lease;
  const uint64_t weights = wanted - pool;
  const uint64_t chunk = std::max<uint64_t>(tenant.needs.chunk, 1);
  lease.weights = weights >= lease.weights ? 0 : (lease.weights - weights) / chunk * chunk;
  return lease;
}

bool LessRecentlyUsed(const Tenant& a, const Tenant& b) {
  return a.last_use != b.last_use ? a.last_use < b.last_use : a.model < b.model;
}

}  // namespace

Eviction ChooseVictims(std::vector<Tenant> tenants, uint64_t needed) {
  std::sort(tenants.begin(), tenants.end(), LessRecentlyUsed);
  Eviction eviction;
  // 1. Spare KV of idle models.
  for (bool pinned : {false, true}) {
    for (const Tenant& tenant : tenants) {
      const uint64_t missing = Missing(eviction, needed);
      if (missing == 0) break;
      if (tenant.pinned != pinned || tenant.active || tenant.taboo) continue;
      const Bytes target = WithoutSpareKv(tenant, tenant.lease, missing);
      if (target != tenant.lease) Take(tenant, target, eviction);
    }
  }
  // 2. Pools and chunks.
  for (const Tenant& tenant : tenants) {
    const uint64_t missing = Missing(eviction, needed);
    if (missing == 0) break;
    if (tenant.pinned || tenant.taboo) continue;
    const Bytes lease = Current(tenant, eviction);
    Bytes target = WithoutSpareKv(tenant, lease, missing);
    if (lease.total() - target.total() < missing) target = WithoutChunks(tenant, lease, missing);
    if (target != lease) Take(tenant, target, eviction);
  }
  // 3. Fixed bytes.
  for (const Tenant& tenant : tenants) {
    if (Missing(eviction, needed) == 0) break;
    if (tenant.pinned || tenant.taboo || tenant.paused || tenant.lease.fixed == 0) continue;
    Take(tenant, Bytes{}, eviction);
    for (Shrink& shrink : eviction.shrinks) {
      if (shrink.model == tenant.model) shrink.end_worker = true;
    }
  }
  eviction.enough = Missing(eviction, needed) == 0;
  return eviction;
}

uint64_t Reclaimable(const std::vector<Tenant>& tenants) {
  uint64_t sum = 0;
  for (const Tenant& tenant : tenants) {
    if (!tenant.pinned) {
      sum += tenant.lease.total();
    } else if (tenant.needs.Whole(tenant.lease)) {
      sum += tenant.lease.kv - tenant.needs.kv_smallest;
    }
  }
  return sum;
}

}  // namespace switchyard::supervisor
