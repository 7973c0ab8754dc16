#pragma once

#include <string>

namespace switchyard::cli {

// Where a supervisor is, and how to reach it there.
struct Endpoint {
  std::string address = "127.0.0.1:7411";  // "HOST:PORT" or "unix:PATH"
  // TLS over TCP, with a server that these PEM certificates vouch for. Empty: in the clear.
  std::string tls_ca;
  std::string token_file;  // the token that calls bring over TLS; empty: none
};

}  // namespace switchyard::cli
