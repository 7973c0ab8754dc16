// `switch`: two models of a running supervisor take turns; how long from asking for the switch to
// the first token of a prompt, beside what moving the bytes alone would take.

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/first_token.h"
#include "bench/limits.h"
#include "bench/live_clients.h"
#include "bench/report.h"
#include "bench/subcommand.h"
#include "common/status_macros.h"
#include "switchyard/v1/control.grpc.pb.h"
#include "switchyard/v1/inference.grpc.pb.h"

namespace switchyard::bench {
namespace {

struct {
  std::string address = "127.0.0.1:7411";
  std::vector<std::string> models;
  int rounds = 5;
  int prompt_tokens = 512;
  int live = 0, live_tokens = 4000;
  double copy_gb_per_s = 0;
  bool json = false;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("--address", options.address, "of the supervisor");
  app.add_option("models", options.models, "that do not fit together")->required()->expected(2, 64);
  app.add_option("--rounds", options.rounds, "after a first one that is not counted")
      ->check(CLI::PositiveNumber);
  app.add_option("--prompt-tokens", options.prompt_tokens)->check(CLI::PositiveNumber);
  app.add_option(
         "--live", options.live,
         "answers of the model that gives way that are under way, to be paused: give models a "
         "drain_timeout of 0s")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--live-tokens", options.live_tokens, "of the prompt of each of them")
      ->check(CLI::PositiveNumber);
  app.add_option("--copy-gb-per-s", options.copy_gb_per_s,
                 "what the device copies, as `swap` measures it: prints the limit");
  app.add_flag("--json", options.json, "one JSON document");
}

struct Seen {
  double loading = 0;      // seconds until the victim had given its memory back
  double ready = 0;        // seconds from sending Switch to its last event
  double first_token = 0;  // and to the first token
  uint64_t bytes = 0;      // of weights that had to move
  uint64_t kv_bytes = 0;   // of paused sequences
};

v1::GenerateRequest MakeRequest(const std::string& model) {
  v1::GenerateRequest request;
  request.set_model(model);
  for (int i = 0; i < options.prompt_tokens; ++i) request.mutable_ids()->add_ids(100 + i % 300);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(1);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

class Switcher {
 public:
  explicit Switcher(std::shared_ptr<grpc::Channel> channel)
      : control_(v1::Control::NewStub(channel)), inference_(v1::Inference::NewStub(channel)) {}

  // Asks for the switch and, at once, for a token.
  absl::StatusOr<Seen> Switch(const std::string& model) {
    Seen seen;
    const double start = Now();
    grpc::ClientContext context;
    v1::SwitchRequest request;
    request.set_model(model);
    auto progress = control_->Switch(&context, request);
    grpc::Status ended;
    std::thread watcher([&] {
      v1::SwitchEvent event;
      while (progress->Read(&event)) {
        seen.bytes = event.bytes_total();
        if (seen.loading == 0 && event.phase() == v1::SWITCH_LOADING) seen.loading = Now() - start;
      }
      ended = progress->Finish();
      seen.ready = Now() - start;
    });
    const auto first = TimeOfFirstToken(*inference_, MakeRequest(model));
    watcher.join();
    RETURN_IF_ERROR(first.status());
    if (!ended.ok()) return absl::InternalError(ended.error_message());
    seen.first_token = *first - start;
    return seen;
  }

  // The same from a model whose sequences are under way; they end afterwards.
  absl::StatusOr<Seen> SwitchFrom(const std::string& from, const std::string& to) {
    LiveClients live(*inference_);
    for (int i = 0; i < options.live; ++i) {
      RETURN_IF_ERROR(live.Add(from, options.live_tokens));
    }
    ASSIGN_OR_RETURN(const uint64_t before, HostBytes());
    ASSIGN_OR_RETURN(Seen seen, Switch(to));
    ASSIGN_OR_RETURN(const uint64_t after, HostBytes());
    seen.kv_bytes = after > before ? after - before : 0;
    return seen;
  }

 private:
  // Of masters and paused sequences.
  absl::StatusOr<uint64_t> HostBytes() {
    grpc::ClientContext context;
    v1::Status reply;
    const grpc::Status status = control_->GetStatus(&context, {}, &reply);
    if (!status.ok()) return absl::InternalError(status.error_message());
    return reply.host().used_bytes();
  }

  std::unique_ptr<v1::Control::Stub> control_;
  std::unique_ptr<v1::Inference::Stub> inference_;
};

absl::StatusOr<std::vector<Seen>> SwitchAll() {
  Switcher switcher(grpc::CreateChannel(options.address, grpc::InsecureChannelCredentials()));
  std::vector<Seen> all;
  std::string last;
  for (int round = 0; round <= options.rounds; ++round) {
    for (const std::string& model : options.models) {
      ASSIGN_OR_RETURN(Seen seen, last.empty() || options.live == 0
                                      ? switcher.Switch(model)
                                      : switcher.SwitchFrom(last, model));
      last = model;
      if (round > 0) all.push_back(seen);
    }
  }
  return all;
}

void Add(const std::vector<Seen>& all, Report& report) {
  std::vector<double> loading, ready, first, bytes, kv;
  for (const Seen& seen : all) {
    loading.push_back(seen.loading * 1e3);
    ready.push_back(seen.ready * 1e3);
    first.push_back(seen.first_token * 1e3);
    bytes.push_back(static_cast<double>(seen.bytes));
    kv.push_back(static_cast<double>(seen.kv_bytes));
  }
  const double moved = Median(bytes);
  const auto copy_ms_of = [](double moved_bytes) {
    return options.copy_gb_per_s > 0 ? moved_bytes / (options.copy_gb_per_s * 1e9) * 1e3 : 0;
  };
  const double copy_ms = copy_ms_of(moved), kv_ms = copy_ms_of(Median(kv));
  report.Add("bytes that moved, median", moved / 1e9, "GB");
  if (options.live > 0) report.Add("KV that was paused, median", Median(kv) / 1e9, "GB");
  report.Add("Switch to loading, median", Median(loading), "ms");
  report.Add("Switch to ready, median", Median(ready), "ms", copy_ms, "the copy alone");
  report.Add("Switch to the first token, median", Median(first), "ms",
             copy_ms > 0 ? 1.10 * copy_ms + kv_ms + 20 : 0,
             options.live > 0 ? "1.10 x the copy alone + the KV's + 20 ms"
                              : "1.10 x the copy alone + 20 ms");
  report.Add("Switch to the first token, worst", Percentile(first, 1.0), "ms");
}

int Run() {
  const auto all = SwitchAll();
  if (!all.ok()) {
    std::fprintf(stderr, "%s\n", std::string(all.status().message()).c_str());
    return 1;
  }
  Report report("switch, " + std::to_string(options.models.size()) + " models, prompts of " +
                    std::to_string(options.prompt_tokens) + " tokens",
                options.json);
  Add(*all, report);
  report.Print();
  return 0;
}

}  // namespace

const Subcommand kSwitchCommand = {
    "switch", "models of a running supervisor take turns: Switch to the first token", AddOptions,
    Run};

}  // namespace switchyard::bench
