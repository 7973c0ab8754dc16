#include "supervisor/retry_after.h"

#include <optional>
#include <string>

#include "google/rpc/error_details.pb.h"

namespace switchyard::supervisor {
namespace {

constexpr char kType[] = "type.googleapis.com/google.rpc.RetryInfo";

}  // namespace

absl::Status WithRetryAfter(absl::Status status, Nanos delay) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(delay / kSecond);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(delay % kSecond));
  status.SetPayload(kType, absl::Cord(retry.SerializeAsString()));
  return status;
}

Nanos RetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(kType);
  google::rpc::RetryInfo retry;
  if (!payload || !retry.ParseFromString(std::string(*payload))) return 0;
  return retry.retry_delay().seconds() * kSecond + retry.retry_delay().nanos();
}

absl::Status Reworded(const absl::Status& status, absl::StatusCode code,
                      const std::string& message) {
  absl::Status reworded(code, message);
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    reworded.SetPayload(type, payload);
  });
  return reworded;
}

}  // namespace switchyard::supervisor
