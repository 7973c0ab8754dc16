#include "supervisor/options.h"

#include <CLI/CLI.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "supervisor/catalog.h"
#include "supervisor/request_memory.h"
#include "supervisor/state_dir.h"

namespace switchyard::supervisor {
namespace {

constexpr int kWrongUsage = 2;
constexpr char kDefaultCacheSize[] = "64GiB";
constexpr char kDefaultRequestMemory[] = "512MiB";
constexpr char kDefaultListen[] = "127.0.0.1:7411";

struct Flags {
  std::string models_dir, config, listen, host_memory, request_memory;
  std::string state_dir, cache_dir, cache_size;
  std::vector<std::string> devices;
  std::string tls_certificate, tls_key, token_file;
  bool no_sandbox = false, check = false, json = false;
};

void Define(CLI::App* app, Flags* flags) {
  app->set_version_flag("--version", Version());
  app->add_option("--models-dir", flags->models_dir,
                  "Directory of *.textproto files, one per model")
      ->required();
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
}

// Of what says "" no size is told.
absl::Status CheckSize(const std::string& option, const std::string& text) {
  const absl::Status size = text.empty() ? absl::OkStatus() : ParseBytes(text).status();
  if (size.ok()) return size;
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", size.message()));
}

// A size that is none is wrong usage, told before anything is touched.
absl::Status CheckSizes(const v1::SupervisorConfig& config) {
  RETURN_IF_ERROR(CheckSize("host_memory", config.host_memory()));
  RETURN_IF_ERROR(CheckSize("request_memory", config.request_memory()));
  RETURN_IF_ERROR(CheckSize("cache_size", config.cache_size()));
  for (const std::string& device : config.devices()) {
    const size_t equals = device.find('=');
    if (equals == std::string::npos) continue;
    RETURN_IF_ERROR(CheckSize(absl::StrCat("device ", device), device.substr(equals + 1)));
  }
  return CheckRequestMemory(*ParseBytes(config.request_memory()));
}

// Flags win over the file.
void LayOver(const Flags& flags, v1::SupervisorConfig& config) {
  if (!flags.listen.empty()) config.set_listen(flags.listen);
  if (!flags.host_memory.empty()) config.set_host_memory(flags.host_memory);
  if (!flags.request_memory.empty()) config.set_request_memory(flags.request_memory);
  if (!flags.state_dir.empty()) config.set_state_dir(flags.state_dir);
  if (!flags.cache_dir.empty()) config.set_cache_dir(flags.cache_dir);
  if (!flags.cache_size.empty()) config.set_cache_size(flags.cache_size);
  if (!flags.tls_certificate.empty()) config.set_tls_certificate(flags.tls_certificate);
  if (!flags.tls_key.empty()) config.set_tls_key(flags.tls_key);
  if (!flags.token_file.empty()) config.set_token_file(flags.token_file);
  if (flags.no_sandbox) config.set_no_sandbox(true);
  if (!flags.devices.empty()) {
    config.mutable_devices()->Assign(flags.devices.begin(), flags.devices.end());
  }
  if (config.listen().empty()) config.set_listen(kDefaultListen);
  if (config.request_memory().empty()) config.set_request_memory(kDefaultRequestMemory);
  if (config.cache_size().empty()) config.set_cache_size(kDefaultCacheSize);
}

// What `check` does needs neither.
absl::Status ChooseDirectories(Options& options) {
  v1::SupervisorConfig& config = options.config;
  options.state_dir_is_temporary = config.state_dir().empty() && options.listen.port == 0;
  options.state_dir = config.state_dir();
  if (options.check) return absl::OkStatus();
  if (config.state_dir().empty()) {
    ASSIGN_OR_RETURN(options.state_dir, DefaultStateDir(options.listen));
  }
  if (config.cache_dir().empty()) {
    ASSIGN_OR_RETURN(*config.mutable_cache_dir(), DefaultCacheDir());
  }
  return absl::OkStatus();
}

absl::StatusOr<Options> Resolve(const Flags& flags) {
  Options options;
  if (!flags.config.empty()) {
    ASSIGN_OR_RETURN(options.config, LoadConfig(flags.config));
  }
  v1::SupervisorConfig& config = options.config;
  LayOver(flags, config);
  ASSIGN_OR_RETURN(options.listen, ParseHostPort(config.listen()));
  ASSIGN_OR_RETURN(options.credentials, ReadCredentials(config));
  RETURN_IF_ERROR(CheckListen(options.listen, options.credentials.given()));
  RETURN_IF_ERROR(CheckSizes(config));
  options.models_dir = flags.models_dir;
  if (flags.devices.empty()) options.reload_file = flags.config;
  options.check = flags.check;
  options.json = flags.json;
  RETURN_IF_ERROR(ChooseDirectories(options));
  return options;
}

}  // namespace

bool ParseOptions(int argc, char** argv, Options* options, EarlyExit* exit) {
  CLI::App app("Switchyard's supervisor: many models on one device, one address",
               "switchyard-supervisor");
  Flags flags;
  Define(&app, &flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    app.exit(error, text, text);
    *exit = {error.get_exit_code() == 0 ? 0 : kWrongUsage, text.str()};
    return false;
  }
  absl::StatusOr<Options> resolved = Resolve(flags);
  if (!resolved.ok()) {
    *exit = {kWrongUsage,
             absl::StrCat("switchyard-supervisor: ", resolved.status().message(), "\n")};
    return false;
  }
  *options = *std::move(resolved);
  return true;
}

}  // namespace switchyard::supervisor
