#include "supervisor/server_status.h"

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace switchyard::supervisor {

grpc::Status ToGrpc(const absl::Status& status, Nanos retry_after) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(status.message().data(), status.message().size());
  if (retry_after <= 0) return grpc::Status(code, message);

  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(retry_after / kSecond);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(retry_after % kSecond));
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(retry);
  return grpc::Status(code, message, details.SerializeAsString());
}

}  // namespace switchyard::supervisor
