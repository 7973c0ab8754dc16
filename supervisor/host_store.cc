#include "supervisor/host_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::supervisor {

absl::StatusOr<uint64_t> HostStore::Create(const std::string& model, uint64_t bytes) {
  // The name is for people who look at /proc; the worker seals the memory once it is complete.
  const std::string name = absl::StrCat("switchyard:", model);
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus("memfd_create for a master");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus("setting the size of a master");
  }
  const uint64_t id = next_id_++;
  masters_.emplace(id, std::move(fd));
  return id;
}

void HostStore::Close(uint64_t master_id) {
  auto master = masters_.extract(master_id);
  if (!master.empty()) closing_.Post([fd = std::move(master.mapped())] {});
}

absl::StatusOr<int> HostStore::Find(uint64_t master_id) const {
  auto it = masters_.find(master_id);
  if (it == masters_.end()) {
    return absl::InternalError(absl::StrCat("there is no master ", master_id));
  }
  return it->second.get();
}

}  // namespace switchyard::supervisor
