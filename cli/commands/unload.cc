#include <cstdio>

#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/render.h"

namespace switchyard::cli {

int RunUnload(const Arguments& args) {
  return WithClient(args.address, [&](Client& client) -> int {
    if (absl::Status status = client.Unload(args.model); !status.ok()) return Outcome(status);
    if (args.json) {
      PrintJson({{"model", args.model}});
    } else {
      std::printf("%s is unloaded\n", args.model.c_str());
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
