// The only file that includes CLI11.
#include "cli/arguments.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "cli/names.h"
#include "cli/numbers.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/utf8.h"
#include "common/printable.h"
#include "common/version.h"

namespace switchyard::cli {
namespace {

using Check = absl::Status (*)(const std::string&);

// CLI11's validators answer with a complaint, or nothing.
CLI::Validator Validator(Check check) {
  return CLI::Validator(
      [check](const std::string& text) { return std::string(check(text).message()); }, "");
}

absl::Status CheckText(const std::string& text) { return CheckUtf8(text, "the text"); }

// Values are parsed here: CLI11 takes an empty text for 0, drops the gap of "1,,2", and wraps -1.
template <typename T, typename Target>
void DefineNumber(CLI::App* app, const char* flag, Target* target, const char* help) {
  app->add_option(
         flag,
         [flag, target](const CLI::results_t& texts) {
           auto value = ParseNumber<T>(texts.back());
           if (!value.ok()) throw CLI::ValidationError(flag, std::string(value.status().message()));
           *target = *value;
           return true;
         },
         help)
      ->option_text("NUMBER");
}

CLI::Option* DefineIds(CLI::App* app, const char* flag, std::vector<int32_t>* target,
                       const char* help) {
  return app
      ->add_option(
          flag,
          [flag, target](const CLI::results_t& texts) {
            auto ids = ParseIds(texts.back());
            if (!ids.ok()) throw CLI::ValidationError(flag, std::string(ids.status().message()));
            *target = *std::move(ids);
            return true;
          },
          help)
      ->option_text("ID,ID,...");
}

void DefineModel(CLI::App* app, Arguments* args) {
  app->add_option("NAME", args->model, "The model")
      ->required()
      ->option_text("(required)")
      ->check(Validator(CheckModelName));
}

void DefineModelFlag(CLI::App* app, Arguments* args) {
  app->add_option("--model", args->model, "The model [the default model]")
      ->option_text("NAME")
      ->check(Validator(CheckModelName));
}

void DefineSampling(CLI::App* app, Arguments* args) {
  DefineNumber<uint32_t>(app, "--max-tokens", &args->max_tokens,
                         "Most tokens; 0, or beyond it: as many as the context holds [0]");
  DefineNumber<float>(app, "--temperature", &args->temperature, "0 (greedy) to 100 [the model's]");
  DefineNumber<uint32_t>(app, "--top-k", &args->top_k,
                         "Only the likeliest so many; 0 is off [the model's]");
  DefineNumber<float>(app, "--top-p", &args->top_p,
                      "Only the likeliest that sum up to this, above 0, to 1 (off) [the model's]");
  DefineNumber<float>(app, "--min-p", &args->min_p,
                      "Only those this likely beside the likeliest, 0 (off) to 1 [the model's]");
  DefineNumber<float>(app, "--repetition-penalty", &args->repetition_penalty,
                      "Over prompt and output, above 0, to 100; 1 is off [the model's]");
  DefineNumber<float>(app, "--presence-penalty", &args->presence_penalty,
                      "Over the output, -100 to 100; 0 is off [0]");
  DefineNumber<float>(app, "--frequency-penalty", &args->frequency_penalty,
                      "Over the output, for every occurrence, -100 to 100; 0 is off [0]");
  DefineNumber<uint64_t>(app, "--seed", &args->seed,
                         "Repeats the draws, 0 to 18446744073709551615 [a fresh one]");
}

void DefineStop(CLI::App* app, Arguments* args) {
  app->add_option(
         "--stop",
         [args](const CLI::results_t& texts) {
           args->stop = texts;
           return true;
         },
         "Ends the text before this string of 1 to 256 bytes; may be repeated, 16 times")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->option_text("TEXT")
      ->check(Validator(CheckText));
  DefineIds(app, "--stop-ids", &args->stop_ids, "Token ids that end the text, at most 64");
  app->add_flag("--ignore-eos", args->ignore_eos, "End-of-sequence tokens do not end the text");
}

void DefineGenerate(CLI::App* app, Arguments* args) {
  DefineModelFlag(app, args);
  auto* prompt = app->add_option("PROMPT", args->prompt, "The prompt; - reads standard input");
  prompt->option_text(" ")->check(Validator(CheckText));
  DefineIds(app, "--prompt-ids", &args->prompt_ids, "The prompt as token ids, used as they are")
      ->excludes(prompt)
      ->option_text("ID,ID,...");
  app->add_flag("--no-special", args->no_special, "Add no begin-of-sequence token to the prompt");
  DefineNumber<uint32_t>(
      app, "--logprobs", &args->logprobs,
      "Log-probabilities, with this many alternatives, 0 to 20; needs --json [none]");
  app->add_flag("--prompt-logprobs", args->prompt_logprobs,
                "Log-probabilities of the prompt, with as many alternatives; needs --json");
  DefineSampling(app, args);
  DefineStop(app, args);
  DefineNumber<int32_t>(app, "--priority", &args->priority, "Higher first, -100 to 100 [0]");
}

void DefineTokenize(CLI::App* app, Arguments* args) {
  DefineModelFlag(app, args);
  app->add_flag("--no-special", args->no_special, "Add no begin-of-sequence token");
  app->add_option("TEXT", args->text, "The text; - reads standard input")
      ->required()
      ->option_text("(required)")
      ->check(Validator(CheckText));
}

void DefinePin(CLI::App* app, Arguments* args) {
  DefineModel(app, args);
  app->add_flag("--off", args->off, "Unpin");
}

void DefineCheck(CLI::App* app, Arguments* args) {
  app->add_option("--models-dir", args->models_dir, "Directory of *.textproto files")
      ->required()
      ->option_text("DIR (required)");
  app->add_option("--device", args->devices, "NAME or NAME=SIZE, as cpu=12GiB; may be repeated")
      ->allow_extra_args(false)
      ->option_text("DEVICE");
  app->add_option("--host-memory", args->host_memory, "Budget for masters and paused sequences")
      ->option_text("SIZE");
  app->add_option("--config", args->config, "The supervisor's configuration file")
      ->option_text("FILE");
  app->add_flag("--other-machine", args->other_machine,
                "Plan for one with more memory than this one has");
}

void DefineNothing(CLI::App*, Arguments*) {}

// What stands before the subcommand or after it.
void DefineCommon(CLI::App* app, Arguments* args) {
  app->add_option("--address", args->server.address, "HOST:PORT or unix:PATH [127.0.0.1:7411]")
      ->option_text("ADDRESS")
      ->check(Validator(CheckAddress));
  app->add_option("--tls-ca", args->server.tls_ca,
                  "TLS: PEM certificates that vouch for the supervisor's [$SWITCHYARD_TLS_CA]")
      ->option_text("FILE");
  app->add_option("--token-file", args->server.token_file,
                  "The token to bring over TLS [$SWITCHYARD_TOKEN_FILE]")
      ->option_text("FILE");
  app->add_flag("--json", args->json, "JSON: one document, or one a line for streams");
}

void Define(const std::string& command, CLI::App* app, Arguments* args) {
  static const std::map<std::string, void (*)(CLI::App*, Arguments*)> kDefinitions = {
      {"status", DefineNothing}, {"models", DefineNothing},    {"switch", DefineModel},
      {"load", DefineModel},     {"unload", DefineModel},      {"prefetch", DefineModel},
      {"pin", DefinePin},        {"generate", DefineGenerate}, {"tokenize", DefineTokenize},
      {"check", DefineCheck},    {"reload", DefineNothing},
  };
  kDefinitions.at(command)(app, args);
  DefineCommon(app, args);
}

// Not by CLI11: it would lay the environment over what stands before the subcommand. A token that
// is set there for some supervisor is none for those that are asked in the clear.
void FillFromEnvironment(Endpoint* server) {
  const auto fill = [](std::string* value, const char* name) {
    const char* const set = std::getenv(name);
    if (value->empty() && set != nullptr) *value = set;
  };
  fill(&server->tls_ca, "SWITCHYARD_TLS_CA");
  if (!server->tls_ca.empty()) fill(&server->token_file, "SWITCHYARD_TOKEN_FILE");
}

// What depends on more than one option.
absl::Status CheckTogether(const std::string& command, const Arguments& args) {
  if (command == "generate" && !args.prompt && args.prompt_ids.empty()) {
    return absl::InvalidArgumentError("PROMPT or --prompt-ids is required");
  }
  if ((args.logprobs || args.prompt_logprobs) && !args.json) {
    return absl::InvalidArgumentError(
        absl::StrCat(args.logprobs ? "--logprobs" : "--prompt-logprobs", " needs --json"));
  }
  if (!args.server.token_file.empty() && args.server.tls_ca.empty() &&
      !IsUnixAddress(args.server.address)) {
    return absl::InvalidArgumentError(
        "--token-file needs --tls-ca: a token is not sent in the clear");
  }
  return absl::OkStatus();
}

int WrongUsage(const CLI::App& app, const std::string& complaint) {
  const auto subcommands = app.get_subcommands();
  const std::string help = subcommands.empty() ? "" : subcommands.front()->get_name() + " ";
  std::fprintf(stderr, "switchyard: %s\nTry: switchyard %s--help\n",
               Printable(complaint, kLines).c_str(), help.c_str());
  return kWrongUsage;
}

int ParseFailed(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {  // --help and --version
    const bool help = error.get_name() == "CallForHelp";
    Print(help ? app.help() : absl::StrCat(error.what(), "\n"));
    return kDone;
  }
  const std::vector<std::string> unknown = app.remaining();
  if (app.get_subcommands().empty()) {
    if (unknown.empty()) return WrongUsage(app, "a command is required");
    const bool flag = unknown[0].substr(0, 1) == "-";
    return WrongUsage(app, absl::StrCat("there is no ", flag ? "option" : "command", " \"",
                                        Printable(unknown[0]), "\""));
  }
  return WrongUsage(app, error.what());
}

}  // namespace

int ParseAndRun(int argc, char** argv, const std::vector<Command>& commands) {
  CLI::App app("Switchyard: many large language models on one device", "switchyard");
  Arguments args;
  app.set_version_flag("--version", Version());
  app.require_subcommand(1);
  DefineCommon(&app, &args);
  app.footer(
      "Exit codes: 0 done, 1 the server said no, or the input could not be read or the output\n"
      "written (why is on standard error), 2 wrong usage, 3 no connection, or it was lost,\n"
      "130 Ctrl-C, 141 the reader of its output went away (SIGPIPE).");
  std::map<const CLI::App*, const Command*> by_app;
  for (const Command& command : commands) {
    CLI::App* sub = app.add_subcommand(command.name, command.help);
    Define(command.name, sub, &args);
    by_app[sub] = &command;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return ParseFailed(app, error);
  }
  FillFromEnvironment(&args.server);
  const Command& command = *by_app.at(app.get_subcommands().front());
  const absl::Status together = CheckTogether(command.name, args);
  if (!together.ok()) return WrongUsage(app, std::string(together.message()));
  return command.run(args);
}

}  // namespace switchyard::cli
