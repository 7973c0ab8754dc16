#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/generation.h"
#include "cli/interrupt.h"
#include "cli/outcome.h"
#include "cli/utf8.h"
#include "common/status_macros.h"

namespace switchyard::cli {
namespace {

void SetSampling(const Arguments& args, v1::Sampling* sampling) {
  if (args.temperature) sampling->set_temperature(*args.temperature);
  if (args.top_k) sampling->set_top_k(*args.top_k);
  if (args.top_p) sampling->set_top_p(*args.top_p);
  if (args.min_p) sampling->set_min_p(*args.min_p);
  if (args.repetition_penalty) sampling->set_repetition_penalty(*args.repetition_penalty);
  if (args.presence_penalty) sampling->set_presence_penalty(*args.presence_penalty);
  if (args.frequency_penalty) sampling->set_frequency_penalty(*args.frequency_penalty);
  if (args.seed) sampling->set_seed(*args.seed);
}

absl::StatusOr<v1::GenerateRequest> MakeRequest(const Arguments& args) {
  v1::GenerateRequest request;
  request.set_model(args.model);
  if (args.prompt) {
    request.set_text(TextOrInput(*args.prompt));
    RETURN_IF_ERROR(CheckUtf8(request.text(), "the prompt"));
  } else {
    request.mutable_ids()->mutable_ids()->Assign(args.prompt_ids.begin(), args.prompt_ids.end());
  }
  request.set_no_special_tokens(args.no_special);
  request.set_priority(args.priority);
  SetSampling(args, request.mutable_sampling());
  v1::StopConditions* stop = request.mutable_stop();
  stop->set_max_tokens(args.max_tokens);
  stop->set_ignore_eos(args.ignore_eos);
  stop->mutable_stop_ids()->Assign(args.stop_ids.begin(), args.stop_ids.end());
  for (const std::string& text : args.stop) {
    RETURN_IF_ERROR(CheckUtf8(text, "--stop"));
    stop->add_stop(text);
  }
  if (args.logprobs) request.mutable_logprobs()->set_logprobs(*args.logprobs);
  if (args.prompt_logprobs) {
    request.mutable_logprobs()->set_prompt_logprobs(args.logprobs.value_or(0));
  }
  return request;
}

int Write(Client& client, const v1::GenerateRequest& request, const Arguments& args,
          const std::atomic<bool>& interrupted) {
  Generation generation;
  const absl::Status status = client.Generate(request, [&](const v1::GenerateEvent& event) {
    generation.Add(event);
    if (!args.json) {
      std::fwrite(event.text().data(), 1, event.text().size(), stdout);
      std::fflush(stdout);
    }
  });
  const bool cancelled = interrupted && absl::IsCancelled(status);
  if (cancelled) generation.Cancel();
  if (!args.json && ::isatty(STDOUT_FILENO)) std::printf("\n");
  if (!status.ok() && !cancelled) return Outcome(status);
  if (args.json) PrintJson(generation.ToJson());
  return kDone;
}

}  // namespace

int RunGenerate(const Arguments& args) {
  static std::atomic<bool> interrupted{false};
  static std::atomic<Client*> running{nullptr};
  OnInterrupt([] {
    interrupted = true;
    if (Client* client = running) client->CancelGenerate();
  });
  auto request = MakeRequest(args);
  if (!request.ok()) return Outcome(request.status());
  return WithClient(args.address, [&](Client& client) {
    running = &client;
    if (interrupted) client.CancelGenerate();  // it came before there was anything to cancel
    const int code = Write(client, *request, args, interrupted);
    running = nullptr;
    return code;
  });
}

}  // namespace switchyard::cli
