#include "supervisor/configuration.h"

#include <google/protobuf/descriptor.h>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "common/status_macros.h"
#include "supervisor/catalog.h"
#include "supervisor/request_memory.h"

namespace switchyard::supervisor {
namespace {

using google::protobuf::FieldDescriptor;
using v1::SupervisorConfig;

constexpr char kDefaultCacheSize[] = "64GiB";
constexpr char kDefaultRequestMemory[] = "512MiB";
constexpr char kDefaultListen[] = "127.0.0.1:7411";

// Of what says "" no size is told.
absl::Status CheckSize(const std::string& option, const std::string& text) {
  const absl::Status size = text.empty() ? absl::OkStatus() : ParseBytes(text).status();
  if (size.ok()) return size;
  return absl::InvalidArgumentError(absl::StrCat(option, ": ", size.message()));
}

// A size that is none is wrong usage, told before anything is touched.
absl::Status CheckSizes(const SupervisorConfig& config) {
  RETURN_IF_ERROR(CheckSize("host_memory", config.host_memory()));
  RETURN_IF_ERROR(CheckSize("request_memory", config.request_memory()));
  RETURN_IF_ERROR(CheckSize("cache_size", config.cache_size()));
  for (const std::string& device : config.devices()) {
    const size_t equals = device.find('=');
    if (equals == std::string::npos) continue;
    RETURN_IF_ERROR(CheckSize(absl::StrCat("device ", device), device.substr(equals + 1)));
  }
  return CheckRequestMemory(*ParseBytes(config.request_memory()));
}

void LayOver(const SupervisorConfig& flags, SupervisorConfig& config) {
  if (flags.devices_size() > 0) config.clear_devices();
  config.MergeFrom(flags);
  if (config.listen().empty()) config.set_listen(kDefaultListen);
  if (config.request_memory().empty()) config.set_request_memory(kDefaultRequestMemory);
  if (config.cache_size().empty()) config.set_cache_size(kDefaultCacheSize);
}

bool Differs(const SupervisorConfig& a, const SupervisorConfig& b, const FieldDescriptor* field) {
  SupervisorConfig mixed = a, other = b;
  SupervisorConfig::GetReflection()->SwapFields(&mixed, &other, {field});
  return mixed.SerializeAsString() != a.SerializeAsString();
}

// The file that a field names holds something else.
bool HoldsOther(const Credentials& a, const Credentials& b, int field) {
  if (field == SupervisorConfig::kTlsCertificateFieldNumber) return a.certificate != b.certificate;
  if (field == SupervisorConfig::kTlsKeyFieldNumber) return a.key != b.key;
  return field == SupervisorConfig::kTokenFileFieldNumber && a.token != b.token;
}

}  // namespace

absl::StatusOr<Configuration> ReadConfiguration(const std::string& file,
                                                const SupervisorConfig& flags) {
  Configuration read;
  if (!file.empty()) {
    ASSIGN_OR_RETURN(read.config, LoadConfig(file));
  }
  LayOver(flags, read.config);
  ASSIGN_OR_RETURN(read.listen, ParseHostPort(read.config.listen()));
  ASSIGN_OR_RETURN(read.credentials, ReadCredentials(read.config));
  RETURN_IF_ERROR(CheckListen(read.listen, read.credentials.given()));
  RETURN_IF_ERROR(CheckSizes(read.config));
  return read;
}

std::vector<std::string> WaitsForRestart(const Configuration& in_force, const Configuration& read) {
  std::vector<std::string> names;
  const auto* fields = SupervisorConfig::GetDescriptor();
  for (int i = 0; i < fields->field_count(); ++i) {
    const FieldDescriptor* field = fields->field(i);
    if (field->number() == SupervisorConfig::kDevicesFieldNumber) continue;
    if (Differs(in_force.config, read.config, field) ||
        HoldsOther(in_force.credentials, read.credentials, field->number())) {
      names.push_back(field->name());
    }
  }
  return names;
}

}  // namespace switchyard::supervisor
