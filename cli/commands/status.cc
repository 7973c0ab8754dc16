#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"

namespace switchyard::cli {

int RunStatus(const Arguments& args) {
  return WithClient(args.server, [&](Client& client) -> int {
    auto status = client.GetStatus();
    if (!status.ok()) return Outcome(status.status());
    if (args.json) {
      PrintJson(StatusJson(*status));
    } else {
      Print(StatusText(*status));
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
