#pragma once

namespace switchyard::supervisor {

// Protobuf and gRPC write lines of their own to standard error whenever a client errs: for a string
// that is not UTF-8, for a TLS handshake with something else. Here they become warnings in our log,
// one a second at most of each library; of strings, none: that client is told by its status. gRPC's
// tracing, which would write what clients send, is turned off. For the whole process, before
// threads start.
void QuietLibraries();

}  // namespace switchyard::supervisor
