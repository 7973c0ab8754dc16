#pragma once

#include <cstdint>
#include <string>

#include "supervisor/bytes.h"
#include "supervisor/ports.h"
#include "switchyard/v1/model.pb.h"

// What people are told of sizes, and of what would help.
namespace switchyard::supervisor {

// "100 MiB (fixed 10 MiB + weights 80 MiB + smallest KV pool 10 MiB)", beside the size that is held
// against it.
std::string SmallestLeaseText(const Needs& needs, uint64_t beside);

// Bytes of a device that may be leased, and how a message tells of them, beside what is asked for:
// "cpu has 150.0 MiB, of which 0 B are kept in reserve: 150.0 MiB can be leased".
uint64_t Usable(const Device& device);
std::string UsableText(const Device& device, uint64_t beside);

// What makes a model fit that needs more than the `usable` bytes of a device: only what helps.
std::string DeviceAdvice(const v1::Plan& plan, uint64_t usable);

}  // namespace switchyard::supervisor
