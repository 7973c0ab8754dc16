#pragma once

#include <string>
#include <vector>

namespace switchyard::cli {

// Rows of cells as columns for people; the first row is the heading. A heading that begins with ">"
// (not printed) aligns its column to the right. Cells are made Printable().
std::string Table(std::vector<std::vector<std::string>> rows);

}  // namespace switchyard::cli
