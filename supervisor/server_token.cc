#include "supervisor/server_token.h"

#include <grpcpp/server_context.h>

#include "absl/strings/match.h"
#include "common/secret_file.h"
#include "supervisor/peer.h"

namespace switchyard::supervisor {
namespace {

constexpr char kHeader[] = "authorization";
constexpr char kScheme[] = "Bearer ";

}  // namespace

bool BringsToken(const grpc::ServerContext& context, const std::string& token) {
  if (token.empty() || IsUnixPeer(context.peer())) return true;
  const auto& metadata = context.client_metadata();
  if (metadata.count(kHeader) != 1) return false;
  const grpc::string_ref given = metadata.find(kHeader)->second;
  const std::string value(given.data(), given.size());
  return absl::StartsWithIgnoreCase(value, kScheme) &&
         SameSecret(value.substr(sizeof(kScheme) - 1), token);
}

}  // namespace switchyard::supervisor
