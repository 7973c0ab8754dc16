#include "supervisor/server_status.h"

#include <string>

#include "common/utf8.h"
#include "google/rpc/status.pb.h"

namespace switchyard::supervisor {
namespace {

// gRPC takes 8 KiB of trailers by default; the message is in them twice, and a character may become
// three. A worker's last lines are longer, and whole in ModelStatus.error.
constexpr size_t kLongestMessage = 1500;

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message =
      ValidUtf8({status.message().data(), status.message().size()}, kLongestMessage);
  google::rpc::Status details;
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    google::protobuf::Any& detail = *details.add_details();
    detail.set_type_url(std::string(type));
    detail.set_value(std::string(payload));
  });
  details.set_code(code);
  details.set_message(message);
  return grpc::Status(code, message, details.SerializeAsString());
}

}  // namespace switchyard::supervisor
