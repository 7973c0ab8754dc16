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
  if (service_ == nullptr) return;
  service_->SetServingStatus(service, serving);
  if (!service.empty()) return;
  service_->SetServingStatus("switchyard.v1.Inference", serving);
  service_->SetServingStatus("switchyard.v1.Control", serving);
}

}  // namespace switchyard::supervisor
