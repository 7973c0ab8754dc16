#include "supervisor/server_health.h"

#include <memory>
#include <utility>

#include "supervisor/server_methods.h"

namespace switchyard::supervisor {
namespace {

using grpc::health::v1::HealthCheckRequest;

class WatchCall final : public StreamCall<Health::Response>, public Health::Sink {
 public:
  WatchCall(std::shared_ptr<ServerCall> call, EventLoop* loop, Health* health)
      : StreamCall(std::move(call), KeepNewest), loop_(loop), health_(health) {}
  void Write(const Health::Response& response) override { Push(response); }
  void Finish(absl::Status status) override { Close(ToGrpc(status)); }

 private:
  void Cancelled() override {
    loop_->Dispatch([call = std::static_pointer_cast<WatchCall>(shared_from_this())] {
      call->health_->StopWatching(call.get());
    });
  }

  EventLoop* const loop_;
  Health* const health_;
};

}  // namespace

void AddHealth(EventLoop* loop, Health* health, ServerCall::Methods* methods) {
  (*methods)["/grpc.health.v1.Health/Check"] = Unary<HealthCheckRequest, Health::Response>(
      loop, [health](const HealthCheckRequest& request, auto reply) {
        reply(health->Check(request.service()));
      });
  (*methods)["/grpc.health.v1.Health/Watch"] = [=](std::shared_ptr<ServerCall> call,
                                                   const grpc::ByteBuffer& bytes) {
    return BeginCall<HealthCheckRequest>(
        loop, std::make_shared<WatchCall>(std::move(call), loop, health), bytes,
        [health](const HealthCheckRequest& request, std::shared_ptr<WatchCall> sink) {
          absl::Status watched = health->Watch(request.service(), sink);
          if (!watched.ok()) sink->Finish(std::move(watched));
        });
  };
}

}  // namespace switchyard::supervisor
