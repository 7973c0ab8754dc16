#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/executor.h"
#include "common/unique_fd.h"
#include "supervisor/catalog.h"
#include "supervisor/ports.h"
#include "supervisor/stored_descriptors.h"

namespace switchyard::supervisor {

// The memfds of masters. They hold no memory until a worker fills them, and are never mapped here.
// Complete ones are kept by the service manager, if there is one that does.
class HostStore final : public MasterStore {
 public:
  // `freed` is called on another thread, once for each master that is closed or left.
  explicit HostStore(std::function<void(uint64_t)> freed = [](uint64_t) {})
      : freed_(std::move(freed)) {}

  // Of what the service manager has kept, what `catalog` can use (adoption.h): masters by model.
  // The rest is closed, and not kept any more: nothing is filled before that memory is free.
  std::map<std::string, uint64_t> Adopt(std::vector<StoredDescriptor> stored,
                                        const std::vector<ModelEntry>& catalog,
                                        uint64_t host_budget);

  absl::StatusOr<uint64_t> Create(const std::string& model, uint64_t bytes) override;
  void Keep(uint64_t master_id, const std::string& model, const std::string& image_key) override;
  void Close(uint64_t master_id) override;
  void Leave(uint64_t master_id) override;

  absl::StatusOr<int> Find(uint64_t master_id) const;
  size_t size() const { return masters_.size(); }

 private:
  struct Master {
    UniqueFd fd;
    uint64_t bytes = 0;
    std::string kept;  // by this name; empty: not kept
  };
  void CloseLater(uint64_t master_id, bool was_kept);

  const std::function<void(uint64_t)> freed_;
  std::map<uint64_t, Master> masters_;
  uint64_t next_id_ = 1;
  // The last descriptor of a memfd frees its memory before close returns, which takes seconds for a
  // large model.
  Executor closing_{1};
};

}  // namespace switchyard::supervisor
