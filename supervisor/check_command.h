#pragma once

#include <string>
#include <vector>

#include "supervisor/catalog.h"
#include "supervisor/devices.h"

namespace switchyard::supervisor {

// The memory arithmetic of a catalog, as a table for people or as one JSON document.
std::string CheckTable(const Budget& budget, const std::vector<ModelEntry>& catalog);
std::string CheckJson(const Budget& budget, const std::vector<ModelEntry>& catalog);

}  // namespace switchyard::supervisor
