#include <unistd.h>

#include <mutex>

#include "cli/client.h"
#include "cli/commands/commands.h"
#include "cli/generation.h"
#include "cli/interrupt.h"
#include "cli/outcome.h"
#include "cli/output.h"
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
    ASSIGN_OR_RETURN(*request.mutable_text(), TextOrInput(*args.prompt, "the prompt"));
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
  stop->mutable_stop()->Assign(args.stop.begin(), args.stop.end());
  if (args.logprobs) request.mutable_logprobs()->set_logprobs(*args.logprobs);
  if (args.prompt_logprobs) {
    request.mutable_logprobs()->set_prompt_logprobs(args.logprobs.value_or(0));
  }
  return request;
}

// What Ctrl-C ends: the process while it connects, then the generation; then nothing any more,
// since what there is of it is being written.
class Interruption {
 public:
  void Happen() {
    std::lock_guard<std::mutex> lock(mutex_);
    happened_ = true;
    if (client_ != nullptr) client_->CancelGenerate();
    if (client_ == nullptr && !ended_) ::_exit(kInterrupted);
  }
  void Begin(Client* client) {
    std::lock_guard<std::mutex> lock(mutex_);
    client_ = client;
  }
  // Whether it happened.
  bool End() {
    std::lock_guard<std::mutex> lock(mutex_);
    client_ = nullptr;
    ended_ = true;
    return happened_;
  }

 private:
  std::mutex mutex_;
  Client* client_ = nullptr;
  bool happened_ = false;
  bool ended_ = false;
};

int Write(Client& client, const v1::GenerateRequest& request, const Arguments& args,
          Interruption* interruption) {
  Generation generation;
  interruption->Begin(&client);
  const absl::Status status = client.Generate(request, [&](const v1::GenerateEvent& event) {
    generation.Add(event);
    return args.json || Print(event.text());
  });
  const bool cancelled = interruption->End() && absl::IsCancelled(status);
  if (OutputFailed()) return kRefused;
  const bool broken = !status.ok() && !cancelled;
  if (cancelled) generation.Cancel(args.seed);
  if (broken) generation.BreakOff(status, args.seed);
  if (!args.json && ::isatty(STDOUT_FILENO)) Print("\n");
  // Of what was refused there is nothing to be told but why.
  if (args.json && (!broken || generation.begun())) PrintJson(generation.ToJson());
  if (broken) return Outcome(status);
  return cancelled ? kInterrupted : kDone;
}

}  // namespace

int RunGenerate(const Arguments& args) {
  // Before Ctrl-C is caught: it ends what waits for standard input.
  auto request = MakeRequest(args);
  if (!request.ok()) return Outcome(request.status());
  static Interruption interruption;  // the thread that waits for Ctrl-C never ends
  OnInterrupt([] { interruption.Happen(); });
  return WithClient(args.server,
                    [&](Client& client) { return Write(client, *request, args, &interruption); });
}

}  // namespace switchyard::cli
