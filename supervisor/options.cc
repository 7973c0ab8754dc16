#include "supervisor/options.h"

#include <CLI/CLI.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/printable.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "supervisor/state_dir.h"

namespace switchyard::supervisor {
namespace {

constexpr int kWrongUsage = 2;

struct Flags {
  std::string models_dir, config, listen, host_memory, request_memory;
  std::string state_dir, cache_dir, cache_size;
  std::vector<std::string> devices;
  std::string tls_certificate, tls_key, token_file;
  bool no_sandbox = false, check = false, json = false, other_machine = false;
};

void Define(CLI::App* app, Flags* flags) {
  app->set_version_flag("--version", Version());
  app->add_option("--models-dir", flags->models_dir,
                  "Directory of *.textproto files, one per model")
      ->option_text("TEXT REQUIRED");  // not by CLI11, which would say so before all else
  app->add_option("--config", flags->config,
                  "SupervisorConfig in text format; flags win over what it says");
  app->add_option("--listen", flags->listen,
                  "HOST:PORT, loopback unless TLS and a token are given; port 0 takes a free one "
                  "[127.0.0.1:7411]");
  app->add_option("--device", flags->devices,
                  "NAME or NAME=SIZE, may be repeated: cpu, or a GPU's UUID, index or name "
                  "[every GPU, else cpu]")
      ->allow_extra_args(false);
  app->add_option("--host-memory", flags->host_memory,
                  "SIZE for host copies of models and paused sequences [a quarter of what is "
                  "available]");
  app->add_option(
      "--request-memory", flags->request_memory,
      "SIZE that requests may take until they run, at least 256KiB; beyond it they are refused "
      "[512MiB]");
  app->add_option("--state-dir", flags->state_dir,
                  "Lock and Unix socket [~/.local/state/switchyard/HOST_PORT]");
  app->add_option("--cache-dir", flags->cache_dir, "Images of models [~/.cache/switchyard]");
  app->add_option("--cache-size", flags->cache_size,
                  "SIZE that they take at most; those used longest ago go first [64GiB]");
  app->add_option("--tls-certificate", flags->tls_certificate,
                  "FILE: TLS on --listen, with this PEM certificate chain");
  app->add_option("--tls-key", flags->tls_key, "FILE: its PEM key");
  app->add_option("--token-file", flags->token_file,
                  "FILE: the token that calls over TLS must bring (`openssl rand -hex 32`)");
  app->add_flag("--no-sandbox", flags->no_sandbox, "Do not confine workers (Landlock)");
  // What `switchyard check` runs.
  app->add_flag("--check", flags->check)->group("");
  app->add_flag("--json", flags->json)->group("");
  app->add_flag("--other-machine", flags->other_machine)->group("");
}

v1::SupervisorConfig Told(const Flags& flags) {
  v1::SupervisorConfig config;
  config.set_listen(flags.listen);
  config.set_host_memory(flags.host_memory);
  config.set_request_memory(flags.request_memory);
  config.set_state_dir(flags.state_dir);
  config.set_cache_dir(flags.cache_dir);
  config.set_cache_size(flags.cache_size);
  config.set_tls_certificate(flags.tls_certificate);
  config.set_tls_key(flags.tls_key);
  config.set_token_file(flags.token_file);
  config.set_no_sandbox(flags.no_sandbox);
  config.mutable_devices()->Assign(flags.devices.begin(), flags.devices.end());
  return config;
}

// What `check` does needs neither.
absl::Status ChooseDirectories(Options& options) {
  options.state_dir = options.config.state_dir();
  options.cache_dir = options.config.cache_dir();
  options.state_dir_is_temporary = options.state_dir.empty() && options.listen.port == 0;
  if (options.check) return absl::OkStatus();
  if (options.state_dir.empty()) {
    ASSIGN_OR_RETURN(options.state_dir, DefaultStateDir(options.listen));
  }
  if (options.cache_dir.empty()) {
    ASSIGN_OR_RETURN(options.cache_dir, DefaultCacheDir());
  }
  return absl::OkStatus();
}

absl::StatusOr<Options> Resolve(const Flags& flags) {
  if (flags.other_machine && !flags.check) {
    return absl::InvalidArgumentError("--other-machine is an option of `switchyard check`");
  }
  if (flags.models_dir.empty()) {
    return absl::InvalidArgumentError(
        "--models-dir is required: a directory of *.textproto files, one per model");
  }
  Options options;
  options.config_file = flags.config;
  options.flags = Told(flags);
  ASSIGN_OR_RETURN(static_cast<Configuration&>(options),
                   ReadConfiguration(options.config_file, options.flags));
  options.models_dir = flags.models_dir;
  options.check = flags.check;
  options.json = flags.json;
  options.other_machine = flags.other_machine;
  RETURN_IF_ERROR(ChooseDirectories(options));
  return options;
}

}  // namespace

const char* Signature(bool check) { return check ? "switchyard: " : "switchyard-supervisor: "; }

bool ParseOptions(int argc, char** argv, Options* options, EarlyExit* exit) {
  CLI::App app("Switchyard's supervisor: many models on one device, one address",
               "switchyard-supervisor");
  Flags flags;
  Define(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    if (error.get_exit_code() == 0) {  // --help and --version
      app.exit(error, text, text);
      *exit = {0, text.str()};
    } else {
      *exit = {kWrongUsage, absl::StrCat(Signature(flags.check), Printable(error.what(), kLines),
                                         "\nTry: switchyard-supervisor --help\n")};
    }
    return false;
  }
  absl::StatusOr<Options> resolved = Resolve(flags);
  if (!resolved.ok()) {
    *exit = {kWrongUsage, absl::StrCat(Signature(flags.check), resolved.status().message(), "\n")};
    return false;
  }
  *options = *std::move(resolved);
  return true;
}

}  // namespace switchyard::supervisor
