#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/endpoint.h"

namespace switchyard::cli {

// The command line of every subcommand; each uses its own part.
struct Arguments {
  Endpoint server;
  bool json = false;

  std::string model;

  // generate
  std::optional<std::string> prompt;  // "-": standard input
  std::vector<int32_t> prompt_ids;
  uint32_t max_tokens = 0;
  std::optional<float> temperature, top_p, min_p;
  std::optional<uint32_t> top_k, logprobs;
  std::optional<float> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_ids;
  bool prompt_logprobs = false;
  bool ignore_eos = false;
  int32_t priority = 0;
  bool no_special = false;  // tokenize too

  std::string text;  // tokenize
  bool off = false;  // pin

  // check
  std::string models_dir, host_memory, config;
  bool other_machine = false;
  std::vector<std::string> devices;
};

// A subcommand.
struct Command {
  const char* name;
  const char* help;
  int (*run)(const Arguments&);
};

// Parses the command line and runs the subcommand it names. Returns the exit code.
int ParseAndRun(int argc, char** argv, const std::vector<Command>& commands);

}  // namespace switchyard::cli
