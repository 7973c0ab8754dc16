#include "absl/strings/str_cat.h"
#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"
#include "common/human.h"

namespace switchyard::cli {

int RunPrefetch(const Arguments& args) {
  return WithClient(args.server, [&](Client& client) -> int {
    auto reply = client.Prefetch(args.model);
    if (!reply.ok()) return Outcome(reply.status());
    if (args.json) {
      PrintJson({{"model", args.model},
                 {"master_bytes", reply->master_bytes()},
                 {"streamed", reply->streamed()}});
    } else {
      Print(absl::StrCat(args.model,
                         reply->streamed() ? " is ready to be streamed, through a ring of "
                                           : " is in host memory: ",
                         HumanBytes(reply->master_bytes()), "\n"));
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
