#pragma once

#include <string>

#include "supervisor/configuration.h"

namespace switchyard::supervisor {

// What it says in `config` may stand in the file, or be the default.
struct Options : Configuration {
  std::string models_dir;
  std::string config_file;                 // of --config; empty: none
  switchyard::v1::SupervisorConfig flags;  // what they say, and nothing else
  std::string state_dir, cache_dir;        // resolved
  bool state_dir_is_temporary = false;

  // `switchyard check`: print the memory arithmetic of models_dir, start nothing.
  bool check = false;
  bool json = false;
  bool other_machine = false;  // this one's memory bounds nothing
};

// What to do instead of starting: print `text` (help and version on standard output, a complaint on
// standard error) and exit.
struct EarlyExit {
  int code = 0;
  std::string text;
};

// How a message begins: whoever asked `switchyard check` is answered by that.
const char* Signature(bool check);

// True if `options` is filled in; false if `exit` is.
bool ParseOptions(int argc, char** argv, Options* options, EarlyExit* exit);

}  // namespace switchyard::supervisor
