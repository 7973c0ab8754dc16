#include "supervisor/health.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::supervisor {
namespace {

// As gRPC's own implementation has it: a watch keeps the name.
constexpr size_t kLongestName = 200;

Health::Response MakeResponse(Health::Response::ServingStatus status) {
  Health::Response response;
  response.set_status(status);
  return response;
}

Health::Response MakeResponse(bool serving) {
  return MakeResponse(serving ? Health::Response::SERVING : Health::Response::NOT_SERVING);
}

}  // namespace

void Health::SetServing(const std::string& service, bool serving) {
  const auto [it, inserted] = serving_.try_emplace(service, serving);
  if (!inserted && std::exchange(it->second, serving) == serving) return;
  Tell(service, MakeResponse(serving));
}

void Health::Remove(const std::string& service) {
  if (serving_.erase(service) > 0) Tell(service, MakeResponse(Response::SERVICE_UNKNOWN));
}

void Health::Tell(const std::string& service, const Response& response) {
  const auto [first, last] = watches_.equal_range(service);
  for (auto watch = first; watch != last; ++watch) watch->second->Write(response);
}

absl::StatusOr<Health::Response> Health::Check(const std::string& service) const {
  if (service.size() > kLongestName) {
    return absl::InvalidArgumentError(
        absl::StrCat("the service's name has ", service.size(), " bytes, at most ", kLongestName));
  }
  const auto it = serving_.find(service);
  if (it != serving_.end()) return MakeResponse(it->second);
  return absl::NotFoundError(absl::StrCat("health of \"", service, "\" is not known"));
}

absl::Status Health::Watch(const std::string& service, std::shared_ptr<Sink> sink) {
  const auto response = Check(service);
  if (absl::IsInvalidArgument(response.status())) return response.status();
  sink->Write(response.ok() ? *response : MakeResponse(Response::SERVICE_UNKNOWN));
  watches_.emplace(service, std::move(sink));
  return absl::OkStatus();
}

void Health::StopWatching(const Sink* sink) {
  std::erase_if(watches_, [sink](const auto& watch) { return watch.second.get() == sink; });
}

void Health::Close() {
  for (const auto& [service, sink] : watches_) {
    sink->Finish(absl::UnavailableError("the server is shutting down"));
  }
  watches_.clear();
}

}  // namespace switchyard::supervisor
