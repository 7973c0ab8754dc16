#include "absl/strings/str_cat.h"
#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"

namespace switchyard::cli {

int RunPin(const Arguments& args) {
  return WithClient(args.server, [&](Client& client) -> int {
    absl::Status status = client.Pin(args.model, !args.off);
    if (!status.ok()) return Outcome(status);
    if (args.json) {
      PrintJson({{"model", args.model}, {"pinned", !args.off}});
    } else {
      Print(absl::StrCat(args.model, " is ", args.off ? "not pinned" : "pinned", "\n"));
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
