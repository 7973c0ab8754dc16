#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"

namespace switchyard::cli {

int RunModels(const Arguments& args) {
  return WithClient(args.server, [&](Client& client) -> int {
    auto reply = client.ListModels();
    if (!reply.ok()) return Outcome(reply.status());
    if (args.json) {
      PrintJson(ModelsJson(reply->models()));
    } else {
      Print(ModelsTable(reply->models()));
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
