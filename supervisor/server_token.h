#pragma once

#include <string>

namespace grpc {
class ServerContext;
}

namespace switchyard::supervisor {

// Whether a call may begin: it came over the Unix socket, whose peers are known, or brings
// `authorization: Bearer TOKEN`, once. An empty token asks nobody.
bool BringsToken(const grpc::ServerContext& context, const std::string& token);

}  // namespace switchyard::supervisor
