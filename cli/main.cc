// switchyard: the command.

#include "cli/arguments.h"
#include "cli/commands/commands.h"
#include "cli/output.h"

int main(int argc, char** argv) {
  using namespace switchyard::cli;
  HoldStandardDescriptors(argv);
  return FinishOutput(ParseAndRun(
      argc, argv,
      {
          {"status", "Devices, leases, host memory, models and energy", RunStatus},
          {"models", "The models and their state", RunModels},
          {"switch", "Make a model resident, and the default", RunSwitch},
          {"load", "Make a model resident", RunLoad},
          {"unload", "End a model's worker and drop its host copy", RunUnload},
          {"prefetch", "Read a model into host memory", RunPrefetch},
          {"pin", "Keep a model on the device", RunPin},
          {"generate", "Write a continuation of a prompt", RunGenerate},
          {"tokenize", "Text to token ids", RunTokenize},
          {"reload", "Read models.d and the configuration file again", RunReload},
          {"check", "Validate a models directory and show the memory arithmetic", RunCheck},
      }));
}
