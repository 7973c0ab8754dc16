// `serve`: what clients of a running supervisor see: time to the first token, tokens a second over
// many streams.

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>

#include "bench/direct_client.h"
#include "bench/first_token.h"
#include "bench/limits.h"
#include "bench/report.h"
#include "bench/subcommand.h"
#include "common/status_macros.h"
#include "switchyard/v1/inference.grpc.pb.h"

namespace switchyard::bench {
namespace {

struct {
  std::string address = "127.0.0.1:7411";
  std::string model;
  std::string prompt = "It is a truth";
  int streams = 1;
  int requests = 50;
  uint32_t tokens = 32;
  std::string direct;
  bool json = false;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("--address", options.address, "of the supervisor");
  app.add_option("--model", options.model, "empty: the default");
  app.add_option("--prompt", options.prompt);
  app.add_option("--streams", options.streams, "requests at once")->check(CLI::Range(1, 4096));
  app.add_option("--requests", options.requests, "of each stream, one after the other")
      ->check(CLI::PositiveNumber);
  app.add_option("--tokens", options.tokens, "of each answer")->check(CLI::PositiveNumber);
  app.add_option("--direct", options.direct,
                 "the model's checkpoint: also asks a worker of its own, without a supervisor "
                 "between, in turns (one stream)");
  app.add_flag("--json", options.json, "one JSON document");
}

v1::GenerateRequest MakeRequest() {
  v1::GenerateRequest request;
  request.set_model(options.model);
  request.set_text(options.prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(options.tokens);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

// One answer as its client sees it. Times in seconds.
struct Seen {
  double first_token = 0;  // since the request was sent
  double counted = 0;      // of that, what the server accounts for: queue, swap, prefill
  int tokens = 0;
  int messages = 0;
  grpc::Status status;
};

// One request; deletes itself.
class Request final : public grpc::ClientReadReactor<v1::GenerateEvent> {
 public:
  using Done = std::function<void(const Seen&)>;
  Request(v1::Inference::Stub& stub, Done done) : done_(std::move(done)), request_(MakeRequest()) {
    start_ = Now();
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&event_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    ++seen_.messages;
    seen_.tokens += event_.ids_size();
    if (seen_.first_token == 0 && event_.ids_size() > 0) seen_.first_token = Now() - start_;
    if (event_.has_finish()) {
      const v1::Timings& timings = event_.finish().timings();
      seen_.counted = (timings.queue_ms() + timings.swap_ms() + timings.prefill_ms()) / 1e3;
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    seen_.status = status;
    done_(seen_);
    delete this;
  }

 private:
  const Done done_;
  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateEvent event_;
  double start_;
  Seen seen_;
};

// Runs `streams` chains of requests.
class Load {
 public:
  explicit Load(v1::Inference::Stub& stub) : stub_(stub) {}

  std::vector<Seen> Run(int streams, int requests) {
    {
      std::lock_guard lock(mutex_);
      open_ = streams;
    }
    for (int i = 0; i < streams; ++i) Next(requests);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_ == 0; });
    return std::move(seen_);
  }

 private:
  void Next(int left) {
    new Request(stub_, [this, left](const Seen& seen) {
      const bool more = left > 1 && seen.status.ok();
      if (more) Next(left - 1);
      std::lock_guard lock(mutex_);
      seen_.push_back(seen);
      if (!more && --open_ == 0) changed_.notify_all();
    });
  }

  v1::Inference::Stub& stub_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Seen> seen_;
  int open_ = 0;
};

void Add(const std::vector<Seen>& all, double seconds, Report& report) {
  std::vector<double> first, routing;
  double tokens = 0, messages = 0;
  for (const Seen& seen : all) {
    first.push_back(seen.first_token * 1e3);
    routing.push_back((seen.first_token - seen.counted) * 1e6);
    tokens += seen.tokens;
    messages += seen.messages;
  }
  report.Add("first token, median", Percentile(first, 0.5), "ms");
  report.Add("first token, 99th percentile", Percentile(first, 0.99), "ms");
  report.Add("of that outside queue, swap and prefill, median", Percentile(routing, 0.5), "us");
  report.Add("tokens", tokens / seconds, "tokens/s");
  report.Add("messages", messages / seconds, "messages/s");
  report.Add("requests", static_cast<double>(all.size()) / seconds, "requests/s");
}

// Routing: the same request through the supervisor and straight to a worker, in turns, so that a
// busy machine slows both.
absl::Status AddRouting(v1::Inference::Stub& stub, Report& report) {
  ASSIGN_OR_RETURN(auto worker, DirectWorker::Start(options.direct));
  std::vector<double> through, direct;
  for (int i = 0; i <= options.requests; ++i) {
    const double start = Now();
    ASSIGN_OR_RETURN(const double routed, TimeOfFirstToken(stub, MakeRequest()));
    ASSIGN_OR_RETURN(double first, worker->FirstToken(MakeRequest()));
    if (i == 0) continue;  // warm
    through.push_back((routed - start) * 1e6);
    direct.push_back(first * 1e6);
  }
  report.Add("first token through the supervisor, median", Median(through), "us");
  report.Add("first token of a worker asked directly, median", Median(direct), "us");
  report.Add("routing", Median(through) - Median(direct), "us");
  return absl::OkStatus();
}

int Run() {
  auto channel = grpc::CreateChannel(options.address, grpc::InsecureChannelCredentials());
  auto stub = v1::Inference::NewStub(channel);
  Report report("serve, " + std::to_string(options.streams) + " streams of " +
                    std::to_string(options.requests) + " requests of " +
                    std::to_string(options.tokens) + " tokens",
                options.json);
  // First: a process that has used gRPC's callbacks keeps threads that fight over its sockets.
  if (!options.direct.empty()) {
    if (absl::Status status = AddRouting(*stub, report); !status.ok()) {
      std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
      return absl::IsUnavailable(status) ? 3 : 1;
    }
  }
  Load warm(*stub), load(*stub);
  std::vector<Seen> seen = warm.Run(1, 1);
  const double start = Now();
  if (seen.front().status.ok()) seen = load.Run(options.streams, options.requests);
  const double seconds = Now() - start;
  for (const Seen& each : seen) {
    if (each.status.ok()) continue;
    std::fprintf(stderr, "%s\n", each.status.error_message().c_str());
    return each.status.error_code() == grpc::StatusCode::UNAVAILABLE ? 3 : 1;
  }
  Add(seen, seconds, report);
  report.Print();
  return 0;
}

}  // namespace

const Subcommand kServeCommand = {"serve", "a running supervisor, as its clients see it",
                                  AddOptions, Run};

}  // namespace switchyard::bench
