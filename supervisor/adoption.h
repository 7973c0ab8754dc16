#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/catalog.h"

namespace switchyard::supervisor {

// Which of the descriptors that a service manager kept are masters that can be used as they are.
// Nothing of what such a descriptor says of itself is believed.

// One of them, as it was found.
struct FoundDescriptor {
  std::string name;     // by which it was kept
  bool memfd = false;   // it is one, and can be read
  bool sealed = false;  // as a complete master is (common/master_seals.h)
  uint64_t bytes = 0;
};

// The name by which a model's master is kept. It says of which image it is, since `image_key` is
// the checkpoint's identity, options and layout. "": it cannot be kept.
std::string MasterName(const std::string& model, const std::string& image_key, uint64_t bytes);

struct Adoption {
  std::string model;    // whose master it is; empty: nobody's
  std::string refused;  // why not, then
};

// One for each of `found`. Pinned models come first, then the order of the catalog, as long as the
// masters fit the host budget.
std::vector<Adoption> ChooseAdoptions(const std::vector<FoundDescriptor>& found,
                                      const std::vector<ModelEntry>& catalog, uint64_t host_budget);

}  // namespace switchyard::supervisor
