#pragma once

#include <map>
#include <memory>
#include <string>

#include "supervisor/ports.h"

namespace grpc {
class HealthCheckServiceInterface;
}

namespace switchyard::supervisor {

// grpc.health.v1.Health, as gRPC implements it (Check and Watch). Remembers what it is told before
// there is a server.
class Health final : public HealthPort {
 public:
  void SetServing(const std::string& service, bool serving) override;

  // From now on the server's service is told; nullptr before the server goes.
  void Attach(grpc::HealthCheckServiceInterface* service);

 private:
  void Tell(const std::string& service, bool serving);

  std::map<std::string, bool> serving_;
  grpc::HealthCheckServiceInterface* service_ = nullptr;
};

}  // namespace switchyard::supervisor
