#include "supervisor/ledger.h"

#include "common/check.h"

namespace switchyard::supervisor {

uint64_t DeviceLedger::Grant(const std::string& model, const Bytes& bytes) {
  const uint64_t before = charged_;
  LeaseEntry& lease = leases_[model];
  lease.granted = bytes;
  lease.epoch = ++last_epoch_;
  lease.charge = Max(lease.charge, bytes);
  Recount();
  SY_ASSERT(charged_ <= before || over() == 0);
  return lease.epoch;
}

void DeviceLedger::Acknowledge(const std::string& model, uint64_t epoch, const Bytes& held) {
  auto it = leases_.find(model);
  if (it == leases_.end()) return;
  LeaseEntry& lease = it->second;
  lease.held = held;
  // A worker that has not seen the last grant may still be following an older, larger one.
  lease.charge =
      epoch == lease.epoch ? Max(lease.granted, held) : Max(lease.charge, Max(lease.granted, held));
  Recount();
}

void DeviceLedger::Drop(const std::string& model) {
  leases_.erase(model);
  Recount();
}

void DeviceLedger::Quarantine(const std::string& model) {
  auto it = leases_.find(model);
  if (it != leases_.end()) it->second.quarantined = true;
}

LeaseEntry DeviceLedger::Get(const std::string& model) const {
  auto it = leases_.find(model);
  return it == leases_.end() ? LeaseEntry{} : it->second;
}

uint64_t DeviceLedger::held() const {
  uint64_t sum = 0;
  for (const auto& [model, lease] : leases_) sum += lease.held.total();
  return sum;
}

uint64_t DeviceLedger::free() const {
  const uint64_t taken = charged_ + device_.reserve_bytes + foreign_;
  return taken >= device_.capacity_bytes ? 0 : device_.capacity_bytes - taken;
}

uint64_t DeviceLedger::over() const {
  const uint64_t taken = charged_ + device_.reserve_bytes + foreign_;
  return taken <= device_.capacity_bytes ? 0 : taken - device_.capacity_bytes;
}

void DeviceLedger::Recount() {
  charged_ = 0;
  for (const auto& [model, lease] : leases_) {
    SY_ASSERT(lease.charge.Covers(Max(lease.granted, lease.held)));
    charged_ += lease.charge.total();
  }
}

bool HostLedger::Set(Account& account, const std::string& model, uint64_t bytes) {
  const uint64_t now = Get(account, model);
  if (bytes > now && bytes - now > free()) return false;
  used_ = used_ - now + bytes;
  if (bytes == 0) {
    account.erase(model);
  } else {
    account[model] = bytes;
  }
  SY_ASSERT(used_ <= budget_);
  return true;
}

void HostLedger::Close(const std::string& model, uint64_t master_id) {
  const auto found = masters_.find(model);
  if (found == masters_.end()) return;
  closing_[master_id] = found->second;
  masters_.erase(found);
}

void HostLedger::Freed(uint64_t master_id) {
  const auto found = closing_.find(master_id);
  if (found == closing_.end()) return;
  used_ -= found->second;
  closing_.erase(found);
}

uint64_t HostLedger::closing() const {
  uint64_t sum = 0;
  for (const auto& [id, bytes] : closing_) sum += bytes;
  return sum;
}

uint64_t HostLedger::paused() const {
  uint64_t sum = 0;
  for (const auto& [model, bytes] : paused_) sum += bytes;
  return sum;
}

uint64_t HostLedger::Get(const Account& account, const std::string& model) {
  auto it = account.find(model);
  return it == account.end() ? 0 : it->second;
}

}  // namespace switchyard::supervisor
