#pragma once

#include "cli/arguments.h"

namespace switchyard::cli {

// One file each. They return the exit code.
int RunStatus(const Arguments& args);
int RunModels(const Arguments& args);
int RunSwitch(const Arguments& args);
int RunLoad(const Arguments& args);
int RunUnload(const Arguments& args);
int RunPrefetch(const Arguments& args);
int RunPin(const Arguments& args);
int RunGenerate(const Arguments& args);
int RunTokenize(const Arguments& args);
int RunReload(const Arguments& args);
int RunCheck(const Arguments& args);

}  // namespace switchyard::cli
