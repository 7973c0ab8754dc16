#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "common/executor.h"
#include "common/unique_fd.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// The memfds of masters. They hold no memory until a worker fills them, and are never mapped here.
class HostStore final : public MasterStore {
 public:
  absl::StatusOr<uint64_t> Create(const std::string& model, uint64_t bytes) override;
  // Its memory goes soon, on another thread: for a moment the host may hold more than the ledger
  // says.
  void Close(uint64_t master_id) override;

  absl::StatusOr<int> Find(uint64_t master_id) const;
  size_t size() const { return masters_.size(); }

 private:
  std::map<uint64_t, UniqueFd> masters_;
  uint64_t next_id_ = 1;
  // The last descriptor of a memfd frees its memory before close returns, which takes seconds for a
  // large model.
  Executor closing_{1};
};

}  // namespace switchyard::supervisor
