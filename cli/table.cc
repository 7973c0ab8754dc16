#include "cli/table.h"

#include <algorithm>

#include "common/printable.h"

namespace switchyard::cli {
namespace {

bool AlignsRight(const std::string& heading) { return !heading.empty() && heading[0] == '>'; }

}  // namespace

std::string Table(std::vector<std::vector<std::string>> rows) {
  if (rows.empty()) return "";
  for (auto& row : rows) {
    for (std::string& cell : row) cell = Printable(cell);
  }
  std::vector<size_t> widths(rows[0].size(), 0);
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const size_t mark = r == 0 && AlignsRight(rows[0][c]) ? 1 : 0;
      widths[c] = std::max(widths[c], rows[r][c].size() - mark);
    }
  }
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < rows[r].size(); ++c) {
      const bool right = AlignsRight(rows[0][c]);
      const std::string cell = r == 0 && right ? rows[r][c].substr(1) : rows[r][c];
      const std::string padding(widths[c] - cell.size(), ' ');
      line += (c == 0 ? "" : "  ") + (right ? padding + cell : cell + padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

}  // namespace switchyard::cli
