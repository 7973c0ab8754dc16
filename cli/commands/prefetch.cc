#include <cstdio>

#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/outcome.h"
#include "cli/render.h"
#include "common/human.h"

namespace switchyard::cli {

int RunPrefetch(const Arguments& args) {
  return WithClient(args.address, [&](Client& client) -> int {
    auto reply = client.Prefetch(args.model);
    if (!reply.ok()) return Outcome(reply.status());
    if (args.json) {
      PrintJson({{"model", args.model}, {"master_bytes", reply->master_bytes()}});
    } else {
      std::printf("%s is in host memory: %s\n", args.model.c_str(),
                  HumanBytes(reply->master_bytes()).c_str());
    }
    return kDone;
  });
}

}  // namespace switchyard::cli
