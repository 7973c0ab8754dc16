#pragma once

#include <string>
#include <vector>

namespace switchyard::supervisor {

// A row of /proc/self/mountinfo (proc(5)), unescaped.
struct Mount {
  std::string point;   // where
  std::string type;    // "nfs4"
  std::string source;  // "filer:/models"
};

std::vector<Mount> ParseMountTable(const std::string& text);

// What `path` lies on, by its name alone, for people: "nfs4 filer:/models, mounted at /models".
// Links are not followed: the file system may not answer. Empty if no mount is known.
std::string MountOf(const std::vector<Mount>& mounts, const std::string& path);

// On this machine, as mounts are now.
std::string MountOf(const std::string& path);

}  // namespace switchyard::supervisor
