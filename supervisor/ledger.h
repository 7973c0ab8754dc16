#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "supervisor/bytes.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// One lease as the ledger knows it.
struct LeaseEntry {
  Bytes granted;       // as last told to the worker
  Bytes held;          // as last acknowledged
  Bytes charge;        // what counts: see DeviceLedger
  uint64_t epoch = 0;  // of the last grant
  bool quarantined = false;
};

// The account of one device. It charges the larger of granted and held: growth counts when it is
// granted, a shrink when it is acknowledged. A grant that replaces an unacknowledged larger one
// does not lower the charge: the worker may have got that far.
//
// Invariant, asserted after every change: no grant of ours takes charges + reserve + foreign beyond
// the capacity. A stranger's later excess may, and a smaller capacity; `over()` tells by how much.
class DeviceLedger {
 public:
  explicit DeviceLedger(Device device) : device_(std::move(device)) {}

  // Tells the ledger the whole lease of `model` as it shall be, and returns its epoch. Growth must
  // fit into free().
  uint64_t Grant(const std::string& model, const Bytes& bytes);
  // What a worker says it holds, having seen the grant of `epoch`. Stale epochs lower nothing.
  void Acknowledge(const std::string& model, uint64_t epoch, const Bytes& held);
  // The worker has been reaped: all of it is back.
  void Drop(const std::string& model);
  // The worker cannot be reaped: its bytes stay charged until Drop.
  void Quarantine(const std::string& model);
  void SetForeign(uint64_t bytes) { foreign_ = bytes; }
  void SetCapacity(uint64_t bytes) { device_.capacity_bytes = bytes; }

  // Empty entry if there is no lease.
  LeaseEntry Get(const std::string& model) const;
  const std::map<std::string, LeaseEntry>& leases() const { return leases_; }
  const Device& device() const { return device_; }
  uint64_t foreign() const { return foreign_; }
  uint64_t charged() const { return charged_; }
  uint64_t held() const;
  // Bytes that may still be granted.
  uint64_t free() const;
  // Bytes by which charges, reserve and strangers exceed the capacity.
  uint64_t over() const;

 private:
  void Recount();

  Device device_;
  std::map<std::string, LeaseEntry> leases_;
  uint64_t foreign_ = 0;
  uint64_t charged_ = 0;
  uint64_t last_epoch_ = 0;  // never used twice on a device, so a stale answer cannot fit
};

// The account of host memory: masters, also while they are being closed, and the KV of paused
// sequences.
class HostLedger {
 public:
  explicit HostLedger(uint64_t budget) : budget_(budget) {}

  // False, and nothing changed, if `bytes` more than now do not fit.
  bool SetMaster(const std::string& model, uint64_t bytes) { return Set(masters_, model, bytes); }
  bool SetPaused(const std::string& model, uint64_t bytes) { return Set(paused_, model, bytes); }
  // The master of `model` is being closed: its bytes count until Freed.
  void Close(const std::string& model, uint64_t master_id);
  void Freed(uint64_t master_id);
  uint64_t closing() const;  // bytes that will be free soon
  uint64_t master(const std::string& model) const { return Get(masters_, model); }
  uint64_t paused(const std::string& model) const { return Get(paused_, model); }
  uint64_t paused() const;  // of all models
  uint64_t budget() const { return budget_; }
  uint64_t used() const { return used_; }
  uint64_t free() const { return budget_ - used_; }

 private:
  using Account = std::map<std::string, uint64_t>;
  bool Set(Account& account, const std::string& model, uint64_t bytes);
  static uint64_t Get(const Account& account, const std::string& model);

  uint64_t budget_;
  uint64_t used_ = 0;
  Account masters_;
  Account paused_;
  std::map<uint64_t, uint64_t> closing_;  // bytes by master
};

}  // namespace switchyard::supervisor
