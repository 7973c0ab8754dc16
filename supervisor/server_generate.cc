#include "supervisor/server_generate.h"

#include <grpc/support/time.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "supervisor/server_status.h"

namespace switchyard::supervisor {
namespace {

// Tokens that wait become one event. An event that says that the request waits stays by itself: it
// describes a moment between tokens.
Merged MergeEvents(v1::GenerateEvent* waiting, v1::GenerateEvent* next) {
  if (waiting->has_waiting() || next->has_waiting() || next->has_start()) return Merged::kNo;
  waiting->mutable_text()->append(next->text());
  waiting->mutable_ids()->MergeFrom(next->ids());
  for (v1::TokenLogprob& logprob : *next->mutable_logprobs()) {
    *waiting->add_logprobs() = std::move(logprob);
  }
  if (next->has_finish()) *waiting->mutable_finish() = std::move(*next->mutable_finish());
  return Merged::kAppended;
}

// gRPC's monotonic clock and ours are the same.
Nanos DeadlineOf(const grpc::ServerContext& context) {
  const gpr_timespec deadline = context.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return 0;
  const gpr_timespec monotonic = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
  // A client may ask for 11,000 years; our clock counts 292 of them.
  if (monotonic.tv_sec >= INT64_MAX / kSecond) return 0;
  return std::max<Nanos>(1, monotonic.tv_sec * kSecond + monotonic.tv_nsec);
}

}  // namespace

GenerateCall::GenerateCall(std::shared_ptr<ServerCall> call, EventLoop* loop, Router* router,
                           uint64_t limit_bytes)
    : RoutedCall(std::move(call), loop, router, MergeEvents, limit_bytes) {}

void GenerateCall::Begin(v1::GenerateRequest request) {
  SetId(router().Generate(std::move(request), DeadlineOf(call().context()), Shared()));
}

// Either tells that the router has let go of the request.
void GenerateCall::Write(v1::GenerateEvent event) {
  if (!OnlyWaits(event)) memory().Release();
  Push(std::move(event));
}

void GenerateCall::Finish(absl::Status status) {
  memory().Release();
  Close(ToGrpc(status));
}

void GenerateCall::Drained() {
  loop().Dispatch([call = Shared()] { call->router().OnSinkDrained(call->id()); });
}

}  // namespace switchyard::supervisor
