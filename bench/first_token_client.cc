#include <grpcpp/grpcpp.h>

#include "bench/first_token.h"
#include "bench/limits.h"

namespace switchyard::bench {

absl::StatusOr<double> TimeOfFirstToken(v1::Inference::Stub& stub,
                                        const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  auto stream = stub.Generate(&context, request);
  double first = 0;
  v1::GenerateEvent event;
  while (stream->Read(&event)) {
    if (first == 0 && event.ids_size() > 0) first = Now();
  }
  if (const grpc::Status status = stream->Finish(); !status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  if (first == 0) return absl::InternalError("the answer had no token");
  return first;
}

}  // namespace switchyard::bench
