#include "supervisor/health.h"

#include <grpcpp/health_check_service_interface.h>

namespace switchyard::supervisor {

void Health::SetServing(const std::string& service, bool serving) {
  serving_[service] = serving;
  Tell(service, serving);
}

void Health::Attach(grpc::HealthCheckServiceInterface* service) {
  service_ = service;
  for (const auto& [name, serving] : serving_) Tell(name, serving);
}

void Health::Tell(const std::string& service, bool serving) {
  if (service_ != nullptr) service_->SetServingStatus(service, serving);
}

}  // namespace switchyard::supervisor
