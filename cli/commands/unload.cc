#include "absl/strings/str_cat.h"
#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"

namespace switchyard::cli {

int RunUnload(const Arguments& args) {
  return WithClient(args.server, [&](Client& client) -> int {
    if (absl::Status status = client.Unload(args.model); !status.ok()) return Outcome(status);
    if (args.json) {
      PrintJson({{"model", args.model}});
    } else {
      Print(absl::StrCat(args.model, " is unloaded\n"));
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
