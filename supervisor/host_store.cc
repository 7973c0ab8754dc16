#include "supervisor/host_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "common/log.h"
#include "common/master_seals.h"
#include "supervisor/adoption.h"

namespace switchyard::supervisor {
namespace {

FoundDescriptor Examine(const StoredDescriptor& stored) {
  const int fd = stored.fd.get();
  FoundDescriptor found;
  found.name = stored.name;
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return found;
  const bool readable = (::fcntl(fd, F_GETFL) & O_ACCMODE) != O_WRONLY;
  found.memfd = readable && ::fcntl(fd, F_GET_SEALS) >= 0;  // other files have no seals
  found.sealed = IsSealedMaster(fd);
  found.bytes = static_cast<uint64_t>(info.st_size);
  return found;
}

}  // namespace

// What is refused is removed first: by name, and one that is adopted may have the same.
std::map<std::string, uint64_t> HostStore::Adopt(std::vector<StoredDescriptor> stored,
                                                 const std::vector<ModelEntry>& catalog,
                                                 uint64_t host_budget) {
  std::vector<FoundDescriptor> found;
  for (const StoredDescriptor& one : stored) found.push_back(Examine(one));
  const std::vector<Adoption> adoptions = ChooseAdoptions(found, catalog, host_budget);
  for (size_t i = 0; i < stored.size(); ++i) {
    if (adoptions[i].refused.empty()) continue;
    LogWarning("dropping \"", ShownName(found[i].name),
               "\", which the service manager kept: ", adoptions[i].refused);
    RemoveStored(found[i].name);
    stored[i].fd.Reset();
  }
  std::map<std::string, uint64_t> adopted;
  for (size_t i = 0; i < stored.size(); ++i) {
    if (!adoptions[i].refused.empty()) continue;
    LogInfo("the master of ", adoptions[i].model, " was kept, ", HumanBytes(found[i].bytes));
    StoreDescriptor(stored[i].fd.get(), found[i].name);
    adopted[adoptions[i].model] = next_id_;
    masters_[next_id_++] = {std::move(stored[i].fd), found[i].bytes, found[i].name};
  }
  return adopted;
}

absl::StatusOr<uint64_t> HostStore::Create(const std::string& model, uint64_t bytes) {
  // The name is for people who look at /proc; the worker seals the memory once it is complete.
  const std::string name = absl::StrCat("switchyard:", model);
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus("memfd_create for a master");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus("setting the size of a master");
  }
  const uint64_t id = next_id_++;
  masters_[id] = {std::move(fd), bytes, ""};
  return id;
}

void HostStore::Keep(uint64_t master_id, const std::string& model, const std::string& image_key) {
  auto it = masters_.find(master_id);
  if (it == masters_.end()) return;
  Master& master = it->second;
  master.kept = MasterName(model, image_key, master.bytes);
  if (!master.kept.empty()) StoreDescriptor(master.fd.get(), master.kept);
}

void HostStore::Close(uint64_t master_id) {
  auto it = masters_.find(master_id);
  if (it == masters_.end()) return;
  const bool was_kept = !it->second.kept.empty();
  if (was_kept) RemoveStored(it->second.kept);
  CloseLater(master_id, was_kept);
}

void HostStore::Leave(uint64_t master_id) { CloseLater(master_id, false); }

// The memory is free when the last who has a descriptor has closed it.
void HostStore::CloseLater(uint64_t master_id, bool was_kept) {
  auto master = masters_.extract(master_id);
  if (master.empty()) return;
  closing_.Post([this, master_id, was_kept, fd = std::move(master.mapped().fd)]() mutable {
    fd.Reset();
    if (was_kept) AwaitServiceManager();
    freed_(master_id);
  });
}

absl::StatusOr<int> HostStore::Find(uint64_t master_id) const {
  auto it = masters_.find(master_id);
  if (it == masters_.end()) {
    return absl::InternalError(absl::StrCat("there is no master ", master_id));
  }
  return it->second.fd.get();
}

}  // namespace switchyard::supervisor
