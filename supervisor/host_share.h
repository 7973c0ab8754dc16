#pragma once

#include <cstdint>
#include <optional>

namespace switchyard::supervisor {

// What a model takes of host memory so that it can become resident: its master, or, where the
// budget cannot hold that, a ring through which its image is read from the disk each time.
struct HostShare {
  uint64_t bytes = 0;
  bool streamed = false;  // a ring
  friend bool operator==(const HostShare&, const HostShare&) = default;
};

// nullopt: the budget does not even have room for a ring.
std::optional<HostShare> HostShareOf(uint64_t image_bytes, uint64_t budget);

// The smallest budget with which models are served at all.
uint64_t LeastHostBudget();

}  // namespace switchyard::supervisor
