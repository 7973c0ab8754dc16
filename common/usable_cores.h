#pragma once

#include <optional>
#include <string>

namespace switchyard {

// How many threads can run at once: the processors of our affinity mask, and no more than the CPU
// quotas of our control groups pay for, rounded up. At least 1.
int UsableCores();

// What a quota pays for, in processors: a cgroup's cpu.max ("150000 100000" is 2). nullopt: no
// limit.
std::optional<int> CoresOfQuota(const std::string& cpu_max);

}  // namespace switchyard
