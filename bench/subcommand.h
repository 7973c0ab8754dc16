#pragma once

// One subcommand of switchyard-bench: a file of its own, and a line in main.cc's table.

namespace CLI {
class App;
}

namespace switchyard::bench {

struct Subcommand {
  const char* name;
  const char* description;
  void (*add_options)(CLI::App& app);
  int (*run)();  // after parsing; the exit code
};

extern const Subcommand kLimitsCommand;
extern const Subcommand kKernelsCommand;
extern const Subcommand kMakeModelCommand;
extern const Subcommand kDecodeCommand;
extern const Subcommand kPrefillCommand;
extern const Subcommand kSwapCommand;
extern const Subcommand kServeCommand;
extern const Subcommand kSwitchCommand;

}  // namespace switchyard::bench
