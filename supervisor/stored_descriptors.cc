// With service_manager.cc the only file that includes libsystemd.
#include "supervisor/stored_descriptors.h"

#include <poll.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/notify_socket.h"

namespace switchyard::supervisor {
namespace {

constexpr size_t kLongestName = 255;
constexpr int kBarrierMs = 2000;

// One that is not would be another message, or be kept by no name.
bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= kLongestName &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return c >= ' ' && c <= '~' && c != ':'; });
}

}  // namespace

// Both calls: the second also fails where the names are not as many as the descriptors, which are
// ours to close even then.
std::vector<StoredDescriptor> TakeStoredDescriptors() {
  const int count = ::sd_listen_fds(/*unset_environment=*/0);
  char** names = nullptr;
  const int named = ::sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  if (count < 0 || named != count) {
    LogWarning("what the service manager says of the descriptors that it kept cannot be read: ",
               std::strerror(count < 0 ? -count : -named));
  }
  std::vector<StoredDescriptor> stored;
  for (int i = 0; i < count; ++i) {
    stored.push_back({UniqueFd(SD_LISTEN_FDS_START + i), named == count ? names[i] : ""});
  }
  for (int i = 0; i < named; ++i) std::free(names[i]);
  std::free(names);
  return stored;
}

void StoreDescriptor(int fd, const std::string& name) {
  if (!IsName(name)) return;
  Notify(absl::StrCat("FDSTORE=1\nFDNAME=", name), fd);
}

void RemoveStored(const std::string& name) {
  if (!IsName(name)) return;
  Notify(absl::StrCat("FDSTOREREMOVE=1\nFDNAME=", name));
}

// The manager closes what comes with a barrier when it comes to it: sd_notify_barrier(3), but
// behind what waits for the socket.
void AwaitServiceManager() {
  if (std::getenv("NOTIFY_SOCKET") == nullptr) return;
  absl::StatusOr<std::pair<UniqueFd, UniqueFd>> barrier = Pipe();
  if (!barrier.ok()) return;
  Notify("BARRIER=1", barrier->second.get());
  barrier->second.Reset();
  pollfd closed{barrier->first.get(), 0, 0};
  (void)::poll(&closed, 1, kBarrierMs);
}

}  // namespace switchyard::supervisor
