#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"

namespace switchyard::supervisor {

// What the driver says of one GPU at one moment. What is not set it does not say.
struct DeviceSample {
  struct Process {
    int32_t pid = 0;
    std::optional<uint64_t> bytes;
  };

  std::string device;  // UUID
  Nanos at = 0;
  std::optional<double> utilization_percent;  // of the last moments in which a kernel was running
  std::optional<uint64_t> milliwatts;
  std::optional<double> celsius;
  std::optional<uint64_t> millijoules;  // a counter from some past, the driver's start perhaps
  std::optional<std::vector<Process>> processes;  // that compute on it
};

}  // namespace switchyard::supervisor
