#include "worker/session.h"

#include <unistd.h>

#include <utility>

#include "common/log.h"

namespace switchyard::worker {
namespace {

// Before any other part of the session can send.
Outbox& SayHello(Outbox& outbox, const v1::Plan& plan, const std::string& remark) {
  v1::FromWorker message;
  message.mutable_hello()->set_pid(::getpid());
  *message.mutable_hello()->mutable_plan() = plan;
  if (!remark.empty()) message.mutable_hello()->mutable_plan()->add_notes(remark);
  outbox.Send(std::move(message));
  return outbox;
}

}  // namespace

Session::Session(Parts parts)
    : parts_(std::move(parts)),
      descriptors_(std::move(parts_.descriptor_socket)),
      requests_(parts_.model, clock_, SayHello(parts_.outbox, parts_.model.plan, parts_.remark)),
      engine_(parts_.model, *parts_.device, *parts_.ops, clock_, requests_, parts_.outbox),
      master_({.image = parts_.model.image,
               .checkpoint = parts_.model.checkpoint,
               .cache_dir = parts_.cache_dir,
               .cache_bytes = parts_.cache_bytes,
               .device = *parts_.device,
               .descriptors = descriptors_,
               .outbox = parts_.outbox,
               .set_source =
                   [this](std::shared_ptr<WeightSource> source) {
                     engine_.SetSource(std::move(source));
                   }}),
      heartbeats_(clock_, parts_.outbox, [this] { return engine_.Stats(); }) {}

void Session::Handle(v1::ToWorker message) {
  switch (message.message_case()) {
    case v1::ToWorker::kUseMaster:
      return master_.Use(message.use_master());
    case v1::ToWorker::kDropMaster:
      return master_.Drop(message.drop_master());
    case v1::ToWorker::kSetLease:
      return engine_.SetLease(message.set_lease());
    case v1::ToWorker::kSubmit:
      return requests_.Submit(std::move(*message.mutable_submit()));
    case v1::ToWorker::kCancel:
      return requests_.Cancel(message.cancel().request_id());
    case v1::ToWorker::kSuspend:
      return requests_.Suspend(message.suspend().request_id(), message.suspend().suspended());
    case v1::ToWorker::kTokenize:
      return requests_.Tokenize(std::move(*message.mutable_tokenize()));
    case v1::ToWorker::kDetokenize:
      return requests_.Detokenize(std::move(*message.mutable_detokenize()));
    case v1::ToWorker::kShutdown:
      return parts_.on_shutdown();
    case v1::ToWorker::MESSAGE_NOT_SET:
      LogWarning("a message without content, from a newer supervisor perhaps");
  }
}

// Requests first: they call the engine. The engine before the master, which it reads.
void Session::Stop() {
  heartbeats_.Stop();
  requests_.Stop();
  engine_.Stop();
  master_.Stop();
}

}  // namespace switchyard::worker
