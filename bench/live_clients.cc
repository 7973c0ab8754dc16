#include "bench/live_clients.h"

#include <utility>

namespace switchyard::bench {
namespace {

constexpr int kMaxTokens = 4000;  // longer than a switch takes

}  // namespace

LiveClients::~LiveClients() {
  for (Sequence& sequence : sequences_) sequence.context.TryCancel();
  for (Sequence& sequence : sequences_) {
    if (sequence.reader.joinable()) sequence.reader.join();
  }
}

absl::Status LiveClients::Add(const std::string& model, int prompt_tokens) {
  v1::GenerateRequest request;
  request.set_model(model);
  const auto own = static_cast<int>(sequences_.size());
  for (int i = 0; i < prompt_tokens; ++i) request.mutable_ids()->add_ids(100 + (i + own) % 300);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(kMaxTokens);
  request.mutable_stop()->set_ignore_eos(true);
  Sequence& sequence = sequences_.emplace_back();
  auto stream = stub_.Generate(&sequence.context, request);
  v1::GenerateEvent event;
  while (stream->Read(&event)) {
    if (event.ids_size() == 0) continue;
    sequence.reader = std::thread([stream = std::move(stream)] {
      v1::GenerateEvent more;
      while (stream->Read(&more)) {
      }
      stream->Finish();
    });
    return absl::OkStatus();
  }
  const grpc::Status ended = stream->Finish();
  return {static_cast<absl::StatusCode>(ended.error_code()),
          "an answer that should go on has ended: " + ended.error_message()};
}

}  // namespace switchyard::bench
