#pragma once

#include "absl/status/statusor.h"
#include "switchyard/v1/inference.grpc.pb.h"

namespace switchyard::bench {

// Asks a supervisor, reading like DirectWorker: blocking, since gRPC's callbacks cost the client
// one more wake-up a message. Now() when the first token was there; returns when the answer has
// ended.
absl::StatusOr<double> TimeOfFirstToken(v1::Inference::Stub& stub,
                                        const v1::GenerateRequest& request);

}  // namespace switchyard::bench
