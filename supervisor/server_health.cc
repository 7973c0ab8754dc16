#include "supervisor/server_health.h"

#include <memory>
#include <utility>

#include "supervisor/server_methods.h"

namespace switchyard::supervisor {

void AddHealth(EventLoop* loop, Health* health, ServerCall::Methods* methods) {
  using grpc::health::v1::HealthCheckRequest;
  (*methods)["/grpc.health.v1.Health/Check"] = Unary<HealthCheckRequest, Health::Response>(
      loop, [health](const HealthCheckRequest& request, auto reply) {
        reply(health->Check(request.service()));
      });
  (*methods)["/grpc.health.v1.Health/Watch"] =
      Watch<HealthCheckRequest, Health::Response, Health::Sink>(
          loop,
          [health](const HealthCheckRequest& request, const std::shared_ptr<Health::Sink>& sink) {
            absl::Status watched = health->Watch(request.service(), sink);
            if (!watched.ok()) sink->Finish(std::move(watched));
          },
          [health](const Health::Sink* sink) { health->StopWatching(sink); });
}

}  // namespace switchyard::supervisor
