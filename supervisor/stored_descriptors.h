#pragma once

#include <string>
#include <vector>

#include "common/unique_fd.h"

namespace switchyard::supervisor {

// Descriptors that the service manager keeps for the next process of this service, as
// sd_pid_notify_with_fds(3) and FileDescriptorStoreMax= of systemd.service(5) have it. Without a
// NOTIFY_SOCKET nothing is kept.

struct StoredDescriptor {
  UniqueFd fd;
  std::string name;
};

// What it has kept for us. Before any thread is started, since it takes LISTEN_* out of the
// environment; an answer to the second call is empty.
std::vector<StoredDescriptor> TakeStoredDescriptors();

// Best effort: whoever should listen may have gone, or keep none. What it has already it keeps
// once.
void StoreDescriptor(int fd, const std::string& name);
// All of that name.
void RemoveStored(const std::string& name);
// Blocks until the service manager has done what it was told before, or for a few seconds: it may
// not read.
void AwaitServiceManager();

}  // namespace switchyard::supervisor
