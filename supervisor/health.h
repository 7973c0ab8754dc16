#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpc/health/v1/health.pb.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// What grpc.health.v1.Health answers: who is served. In the event loop's tasks.
class Health final : public HealthPort {
 public:
  using Response = grpc::health::v1::HealthCheckResponse;

  // A Watch.
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void Write(const Response& response) = 0;
    virtual void Finish(absl::Status status) = 0;
  };

  void SetServing(const std::string& service, bool serving) override;
  void Remove(const std::string& service) override;

  // NOT_FOUND: nobody has told of this service. INVALID_ARGUMENT: a name of more than 200 bytes.
  absl::StatusOr<Response> Check(const std::string& service) const;
  // Writes what Check says (SERVICE_UNKNOWN for a service that is not known yet, or any more), now
  // and at every change. INVALID_ARGUMENT as above.
  absl::Status Watch(const std::string& service, std::shared_ptr<Sink> sink);
  void StopWatching(const Sink* sink);
  // Ends the watches: the server is about to go.
  void Close();

 private:
  void Tell(const std::string& service, const Response& response);

  std::map<std::string, bool> serving_;
  std::multimap<std::string, std::shared_ptr<Sink>> watches_;  // by service
};

}  // namespace switchyard::supervisor
