#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/progress.h"

namespace switchyard::cli {

int RunLoad(const Arguments& args) {
  return WithClient(args.server, [&](Client& client) {
    return ShowProgress(args.model, args.json, [&](const Client::OnSwitchEvent& on_event) {
      return client.Load(args.model, on_event);
    });
  });
}

}  // namespace switchyard::cli
