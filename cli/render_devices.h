#pragma once

#include <string>

#include "cli/render.h"
#include "switchyard/v1/control.pb.h"

namespace switchyard::cli {

Json DeviceJson(const switchyard::v1::DeviceStatus& device);
// A line for its memory, one for what it does if it tells, and tables of leases and processes.
std::string DeviceText(const switchyard::v1::DeviceStatus& device);

// 12345.6 -> "12.3 kJ", for people.
std::string HumanJoules(double joules);

// A number of the protocol that may be absent.
template <typename T>
Json OrNull(bool has, T value) {
  return has ? Json(value) : Json();
}

}  // namespace switchyard::cli
