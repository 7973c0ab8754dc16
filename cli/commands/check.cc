#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"

namespace switchyard::cli {

// The arithmetic is the supervisor's own, so that there is one of it: this becomes
// `switchyard-supervisor --check`, which starts nothing and listens on nothing.
int RunCheck(const Arguments& args) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string program = (self.parent_path() / "switchyard-supervisor").string();
  std::vector<std::string> words = {program, "--check", "--models-dir", args.models_dir};
  if (!args.config.empty()) words.insert(words.end(), {"--config", args.config});
  if (!args.host_memory.empty()) words.insert(words.end(), {"--host-memory", args.host_memory});
  for (const std::string& device : args.devices) words.insert(words.end(), {"--device", device});
  if (args.json) words.push_back("--json");
  if (args.other_machine) words.push_back("--other-machine");

  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  return Outcome(absl::NotFoundError(absl::StrCat(program, ": ", std::strerror(errno))));
}

}  // namespace switchyard::cli
