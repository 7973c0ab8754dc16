#include "supervisor/mount_table.h"

#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace switchyard::supervisor {
namespace {

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// The kernel writes blanks and backslashes as \ooo.
std::string Unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 3 < text.size() && IsOctal(text[i + 1]) &&
                        IsOctal(text[i + 2]) && IsOctal(text[i + 3]);
    if (!escape) {
      out.push_back(text[i]);
      continue;
    }
    out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                    (text[i + 3] - '0')));
    i += 3;
  }
  return out;
}

bool Holds(const std::string& point, const std::string& path) {
  if (point == "/" || point == path) return true;
  return absl::StartsWith(path, absl::StrCat(point, "/"));
}

}  // namespace

// 36 35 98:0 /root /point rw,noatime shared:1 ... - type source options
std::vector<Mount> ParseMountTable(const std::string& text) {
  std::vector<Mount> mounts;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    size_t dash = 5;
    while (dash < fields.size() && fields[dash] != "-") ++dash;
    if (dash + 2 >= fields.size()) continue;
    mounts.push_back(
        {Unescaped(fields[4]), Unescaped(fields[dash + 1]), Unescaped(fields[dash + 2])});
  }
  return mounts;
}

std::string MountOf(const std::vector<Mount>& mounts, const std::string& path) {
  const Mount* nearest = nullptr;
  for (const Mount& mount : mounts) {  // of two on one point the later one hides the other
    const bool nearer = nearest == nullptr || mount.point.size() >= nearest->point.size();
    if (Holds(mount.point, path) && nearer) nearest = &mount;
  }
  if (nearest == nullptr) return "";
  return absl::StrCat(nearest->type, " ", nearest->source, ", mounted at ", nearest->point);
}

std::string MountOf(const std::string& path) {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream text;
  text << file.rdbuf();
  return MountOf(ParseMountTable(text.str()), path);
}

}  // namespace switchyard::supervisor
