// switchyard-worker: one model on one device. Started by the supervisor, never by people.

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "worker/options.h"
#include "worker/serve.h"

int main(int argc, char** argv) {
  using switchyard::worker::Mode;
  auto options = switchyard::worker::ParseOptions(argc, argv);
  if (!options.ok()) {
    const std::string message(options.status().message());
    std::fprintf(stderr, "switchyard-worker: %s\n%s", message.c_str(), switchyard::worker::Usage());
    return 2;
  }
  switchyard::InitLog(absl::StrCat("worker ", options->model.name()));
  absl::Status status = options->mode == Mode::kPlan ? switchyard::worker::RunPlan(*options)
                                                     : switchyard::worker::RunServe(*options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return switchyard::worker::ExitStatus(options->mode, status);
}
