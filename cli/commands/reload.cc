#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"

namespace switchyard::cli {

int RunReload(const Arguments& args) {
  return WithClient(args.server, [&](Client& client) -> int {
    auto reply = client.ReloadConfig();
    if (!reply.ok()) return Outcome(reply.status());
    if (args.json) {
      PrintJson(ReloadJson(*reply));
    } else {
      Print(ReloadText(*reply));
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
