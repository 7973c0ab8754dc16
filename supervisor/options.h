#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/credentials.h"
#include "supervisor/listen.h"
#include "switchyard/v1/model.pb.h"

namespace switchyard::supervisor {

struct Options {
  std::string models_dir;
  HostPort listen;
  std::string state_dir;  // resolved
  bool state_dir_is_temporary = false;
  // Read again by a reload for the sizes of devices; empty: there is none, or flags tell them.
  std::string reload_file;
  // Everything else, the file's values with the flags laid over them and cache_dir resolved.
  switchyard::v1::SupervisorConfig config;
  Credentials credentials;  // what its files hold

  // `switchyard check`: print the memory arithmetic of models_dir, start nothing.
  bool check = false;
  bool json = false;
};

// What to do instead of starting: print `text` (help and version on standard output, a complaint on
// standard error) and exit.
struct EarlyExit {
  int code = 0;
  std::string text;
};

// True if `options` is filled in; false if `exit` is.
bool ParseOptions(int argc, char** argv, Options* options, EarlyExit* exit);

}  // namespace switchyard::supervisor
