// switchyard-bench: what this machine can do, and what Switchyard makes of it.

#include <CLI/CLI.hpp>

#include "bench/subcommand.h"

namespace {

using switchyard::bench::Subcommand;

const Subcommand* const kCommands[] = {
    &switchyard::bench::kLimitsCommand,    &switchyard::bench::kKernelsCommand,
    &switchyard::bench::kMakeModelCommand, &switchyard::bench::kDecodeCommand,
    &switchyard::bench::kPrefillCommand,   &switchyard::bench::kSwapCommand,
    &switchyard::bench::kServeCommand,     &switchyard::bench::kSwitchCommand,
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures Switchyard beside the limits of the machine");
  app.require_subcommand(1);
  for (const Subcommand* command : kCommands) {
    command->add_options(*app.add_subcommand(command->name, command->description));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  for (const Subcommand* command : kCommands) {
    if (app.got_subcommand(command->name)) return command->run();
  }
  return 2;
}
