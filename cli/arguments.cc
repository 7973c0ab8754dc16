// The only file that includes CLI11.
#include "cli/arguments.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <map>

#include "cli/outcome.h"
#include "common/version.h"

namespace switchyard::cli {
namespace {

void DefineModel(CLI::App* app, Arguments* args) {
  app->add_option("NAME", args->model, "The model")->required();
}

void DefineSampling(CLI::App* app, Arguments* args) {
  app->add_option("--max-tokens", args->max_tokens, "Most tokens [as many as the context holds]");
  app->add_option("--temperature", args->temperature, "0 is greedy");
  app->add_option("--top-k", args->top_k, "0 is off");
  app->add_option("--top-p", args->top_p);
  app->add_option("--min-p", args->min_p);
  app->add_option("--repetition-penalty", args->repetition_penalty);
  app->add_option("--presence-penalty", args->presence_penalty);
  app->add_option("--frequency-penalty", args->frequency_penalty);
  app->add_option("--seed", args->seed);
  app->add_option("--stop", args->stop, "Ends the text before this string; may be repeated")
      ->allow_extra_args(false);
  app->add_option("--stop-ids", args->stop_ids, "Token ids that end the text: 1,2,3")
      ->delimiter(',')
      ->allow_extra_args(false);
  app->add_flag("--ignore-eos", args->ignore_eos, "End-of-sequence tokens do not end the text");
  app->add_option("--priority", args->priority, "Higher first, -100 to 100");
}

void DefineGenerate(CLI::App* app, Arguments* args) {
  app->add_option("--model", args->model, "The model [the default model]");
  auto* prompt = app->add_option("PROMPT", args->prompt, "The prompt; - reads standard input");
  app->add_option("--prompt-ids", args->prompt_ids, "The prompt as token ids: 1,2,3")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->excludes(prompt);
  app->add_flag("--no-special", args->no_special, "Add no begin-of-sequence token to the prompt");
  app->add_option("--logprobs", args->logprobs, "Log-probabilities, with this many alternatives");
  app->add_flag("--prompt-logprobs", args->prompt_logprobs, "Log-probabilities of the prompt");
  DefineSampling(app, args);
  app->callback([app, args] {
    if (!args->prompt && args->prompt_ids.empty()) {
      throw CLI::RequiredError("PROMPT or --prompt-ids");
    }
  });
}

void DefineTokenize(CLI::App* app, Arguments* args) {
  app->add_option("--model", args->model, "The model [the default model]");
  app->add_flag("--no-special", args->no_special, "Add no begin-of-sequence token");
  app->add_option("TEXT", args->text, "The text; - reads standard input")->required();
}

void DefinePin(CLI::App* app, Arguments* args) {
  DefineModel(app, args);
  app->add_flag("--off", args->off, "Unpin");
}

void DefineCheck(CLI::App* app, Arguments* args) {
  app->add_option("--models-dir", args->models_dir, "Directory of *.textproto files")->required();
  app->add_option("--device", args->devices, "NAME or NAME=SIZE; may be repeated")
      ->allow_extra_args(false);
  app->add_option("--host-memory", args->host_memory, "SIZE");
  app->add_option("--config", args->config, "The supervisor's configuration file");
}

void DefineNothing(CLI::App*, Arguments*) {}

void Define(const std::string& command, CLI::App* app, Arguments* args) {
  static const std::map<std::string, void (*)(CLI::App*, Arguments*)> kDefinitions = {
      {"status", DefineNothing}, {"models", DefineNothing},    {"switch", DefineModel},
      {"load", DefineModel},     {"unload", DefineModel},      {"prefetch", DefineModel},
      {"pin", DefinePin},        {"generate", DefineGenerate}, {"tokenize", DefineTokenize},
      {"check", DefineCheck},
  };
  kDefinitions.at(command)(app, args);
}

}  // namespace

int ParseAndRun(int argc, char** argv, const std::vector<Command>& commands) {
  CLI::App app("Switchyard: many large language models on one device", "switchyard");
  Arguments args;
  app.set_version_flag("--version", Version());
  app.require_subcommand(1);
  app.fallthrough();  // --json and --address may stand after the subcommand
  app.add_option("--address", args.address, "HOST:PORT or unix:PATH")->capture_default_str();
  app.add_flag("--json", args.json, "JSON: one document, or one a line for streams");
  app.footer(
      "Exit codes: 0 done, 1 the server said no (why is on standard error), 2 wrong usage, "
      "3 no connection, or it broke.");
  std::map<const CLI::App*, const Command*> by_app;
  for (const Command& command : commands) {
    CLI::App* sub = app.add_subcommand(command.name, command.help);
    Define(command.name, sub, &args);
    by_app[sub] = &command;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kWrongUsage;
  }
  return by_app.at(app.get_subcommands().front())->run(args);
}

}  // namespace switchyard::cli
