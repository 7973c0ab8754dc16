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

// `lease` with its KV pool reduced by whole granules to give up to `wanted`, but still whole, and
// with room for the `used` bytes.
Bytes WithoutSpareKv(const Tenant& tenant, Bytes lease, uint64_t wanted, uint64_t used) {
  const Needs& needs = tenant.needs;
  const uint64_t granule = std::max<uint64_t>(needs.kv_granule, 1);
  const uint64_t kept = std::max(needs.kv_smallest, RoundUp(used, granule));
  if (!needs.Whole(lease) || lease.kv <= kept) return lease;
  const uint64_t spare = lease.kv - kept;
  const uint64_t rounded = RoundUp(std::min(wanted, spare), granule);
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

// Whether a byte of `a` is worth less than one of `b`; see ChooseVictims.
template <typename T>
bool WorthLess(const T& a, const T& b, Nanos now) {
  auto age = [now](const T& t) {
    return static_cast<double>(std::max<Nanos>(now - t.last_use, 1));
  };
  const double x = a.cost * age(b);
  const double y = b.cost * age(a);
  return x != y ? x < y : a.model < b.model;
}

// 1. KV that holds nothing.
void TakeSpareKv(const std::vector<Tenant>& tenants, uint64_t needed, Eviction& eviction) {
  for (const bool pinned : {false, true}) {
    for (const Tenant& tenant : tenants) {
      const uint64_t missing = Missing(eviction, needed);
      if (missing == 0) return;
      if (tenant.pinned != pinned || tenant.taboo) continue;
      const uint64_t used = tenant.active ? tenant.kv_used : 0;
      const Bytes target = WithoutSpareKv(tenant, tenant.lease, missing, used);
      if (target != tenant.lease) Take(tenant, target, eviction);
    }
  }
}

void TakeFixed(const Tenant& tenant, Eviction& eviction) {
  Take(tenant, Bytes{}, eviction);
  for (Shrink& shrink : eviction.shrinks) {
    if (shrink.model == tenant.model) shrink.end_worker = true;
  }
}

// 2. Devices that were opened for nobody yet, if that is enough.
void TakeUnused(const std::vector<Tenant>& tenants, uint64_t needed, Eviction& eviction) {
  const auto may = [](const Tenant& t) { return t.unused && !t.taboo && !t.pinned; };
  uint64_t all = 0;
  for (const Tenant& tenant : tenants) all += may(tenant) ? tenant.lease.fixed : 0;
  if (all < Missing(eviction, needed)) return;
  for (const Tenant& tenant : tenants) {
    if (Missing(eviction, needed) == 0) return;
    if (may(tenant)) TakeFixed(tenant, eviction);
  }
}

}  // namespace

Eviction ChooseVictims(std::vector<Tenant> tenants, uint64_t needed, Nanos now) {
  std::sort(tenants.begin(), tenants.end(), [now](const Tenant& a, const Tenant& b) {
    return a.active != b.active ? b.active : WorthLess(a, b, now);
  });
  Eviction eviction;
  TakeSpareKv(tenants, needed, eviction);  // 1
  TakeUnused(tenants, needed, eviction);   // 2
  // 3. Pools and chunks.
  for (const Tenant& tenant : tenants) {
    const uint64_t missing = Missing(eviction, needed);
    if (missing == 0) break;
    if (tenant.pinned || tenant.taboo || tenant.stays) continue;
    const Bytes lease = Current(tenant, eviction);
    Bytes target = WithoutSpareKv(tenant, lease, missing, 0);
    if (lease.total() - target.total() < missing) target = WithoutChunks(tenant, lease, missing);
    if (target != lease) Take(tenant, target, eviction);
  }
  // 4. Fixed bytes.
  for (const Tenant& tenant : tenants) {
    if (Missing(eviction, needed) == 0) break;
    const bool pauses = tenant.paused && !tenant.needs.Whole(tenant.lease);
    const bool stays = pauses || tenant.worker_stays || tenant.stays;
    if (tenant.pinned || tenant.taboo || stays || tenant.lease.fixed == 0) continue;
    TakeFixed(tenant, eviction);
  }
  eviction.enough = Missing(eviction, needed) == 0;
  return eviction;
}

std::vector<std::string> ChooseMasters(std::vector<SpareMaster> masters, uint64_t needed,
                                       Nanos now) {
  std::sort(masters.begin(), masters.end(), [now](const SpareMaster& a, const SpareMaster& b) {
    return a.pinned != b.pinned ? b.pinned : WorthLess(a, b, now);
  });
  uint64_t freed = 0;
  auto end = masters.begin();
  while (end != masters.end() && freed < needed) freed += (end++)->bytes;
  std::vector<std::string> dropped;
  // Those worth most may stay after all, where larger ones came later.
  while (end != masters.begin()) {
    --end;
    if (freed >= needed && freed - needed >= end->bytes) {
      freed -= end->bytes;
    } else {
      dropped.push_back(end->model);
    }
  }
  return dropped;
}

uint64_t Reclaimable(const Tenant& tenant) {
  if (!tenant.pinned) return tenant.lease.total();
  return tenant.needs.Whole(tenant.lease) ? tenant.lease.kv - tenant.needs.kv_smallest : 0;
}

}  // namespace switchyard::supervisor
