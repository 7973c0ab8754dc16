#pragma once

#include <string>
#include <vector>

#include "grpc/reflection/v1alpha/reflection.pb.h"

namespace switchyard::supervisor {

// The answer to one request of gRPC's reflection protocol, from the descriptors that are compiled
// in. `services`: full names. A request that asks for what is not there gets an error_response
// (NOT_FOUND), one that asks for nothing INVALID_ARGUMENT.
grpc::reflection::v1alpha::ServerReflectionResponse Reflect(
    const std::vector<std::string>& services,
    const grpc::reflection::v1alpha::ServerReflectionRequest& request);

}  // namespace switchyard::supervisor
