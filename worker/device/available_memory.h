#pragma once

#include <cstdint>

namespace switchyard::worker {

// Bytes that this process can still take without making the host swap or the kernel kill: the
// smaller of what the kernel calls available and what the control group's limit leaves. UINT64_MAX
// where neither can be read.
uint64_t AvailableHostMemory();

}  // namespace switchyard::worker
