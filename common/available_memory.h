#pragma once

#include <cstdint>
#include <istream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// Bytes of memory that this machine, or the control group that we are in, has to give: the smallest
// of MemAvailable and what each group on the way up leaves of its limit.
absl::StatusOr<uint64_t> AvailableMemory();

// Bytes of memory that there are: of this machine, or the smallest limit of the control groups that
// we are in.
absl::StatusOr<uint64_t> TotalMemory();

// Bytes of the page cache that a group's memory.stat tells of, its children's included. They count
// as used, and are given up for whoever needs memory, also those that were read more than once (as
// MemAvailable has it).
uint64_t PageCacheInGroup(std::istream& memory_stat);

// Left to the rest of the host: what would eat into it is refused before the kernel kills somebody.
constexpr uint64_t kHostReserve = uint64_t{64} << 20;

// Whether `bytes` more can be had and the reserve stays. Where nobody tells how much there is, the
// kernel decides: OK. Else RESOURCE_EXHAUSTED, of which IsHostShort is true, with the arithmetic.
absl::Status CheckHostHas(uint64_t bytes);
absl::Status CheckHostHas(uint64_t bytes, uint64_t available);

// That what failed did so for want of the host's memory, which is not its own fault.
absl::Status HostShort(const std::string& message);
bool IsHostShort(const absl::Status& status);

}  // namespace switchyard
