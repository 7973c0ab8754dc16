#include "common/control_groups.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/str_split.h"

namespace switchyard {
namespace {

constexpr char kRoot[] = "/sys/fs/cgroup";

bool Names(const std::string& controllers, const std::string& controller) {
  const std::vector<std::string> names = absl::StrSplit(controllers, ',');
  return std::find(names.begin(), names.end(), controller) != names.end();
}

}  // namespace

// A line is "0::/path" (version 2) or "4:cpu,cpuacct:/path".
void VisitControlGroups(const std::string& controller,
                        const std::function<void(const std::string& directory, bool v2)>& visit) {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && !Names(controllers, controller)) continue;
    const std::string root = v2 ? kRoot : std::string(kRoot) + "/" + controller;
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      visit(root + path, v2);
      if (path.rfind('/') == std::string::npos) break;
    }
  }
}

}  // namespace switchyard
