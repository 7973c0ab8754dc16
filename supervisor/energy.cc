#include "supervisor/energy.h"

#include <algorithm>
#include <iterator>

namespace switchyard::supervisor {

void EnergyMeter::Add(const DeviceSample& sample) {
  if (!joules_ && (sample.millijoules || sample.milliwatts)) joules_ = 0;
  if (sample.millijoules) {
    Count(*sample.millijoules);
  } else if (sample.milliwatts && !counter_) {
    return Integrate(sample.at, *sample.milliwatts);
  }
  // A counter that is silent for once makes up for it at the next sample.
  power_.reset();
}

// One that goes back was reset: how far it had come is not known.
void EnergyMeter::Count(uint64_t millijoules) {
  if (counter_ && millijoules > *counter_) {
    *joules_ += static_cast<double>(millijoules - *counter_) / 1e3;
  }
  counter_ = millijoules;
}

void EnergyMeter::Integrate(Nanos at, uint64_t milliwatts) {
  if (power_ && at > power_->at) {
    const double watts =
        (static_cast<double>(power_->milliwatts) + static_cast<double>(milliwatts)) / 2e3;
    *joules_ += watts * static_cast<double>(at - power_->at) / kSecond;
  }
  power_ = {at, milliwatts};
}

void EnergyShares::Busy(const std::string& model, Nanos total) {
  Worker& worker = workers_[model];
  if (worker.gone) worker.total = 0;
  worker.gone = false;
  worker.heard = true;
  worker.unshared += static_cast<double>(std::max(total, worker.total) - worker.total);
  worker.total = std::max(worker.total, total);
}

void EnergyShares::Gone(const std::string& model) {
  if (auto it = workers_.find(model); it != workers_.end()) it->second.gone = true;
}

std::map<std::string, double> EnergyShares::Settle(double joules) {
  std::map<std::string, double> shares;
  const double fresh = joules - settled_.value_or(0);
  if (settled_ && fresh <= 0) return shares;
  double busy = 0;
  for (const auto& [model, worker] : workers_) {
    if (!worker.heard && !worker.gone) return shares;
    busy += worker.unshared;
  }
  for (auto it = workers_.begin(); it != workers_.end();) {
    Worker& worker = it->second;
    if (worker.unshared > 0 && fresh > 0) shares[it->first] = fresh * worker.unshared / busy;
    worker.unshared = 0;
    worker.heard = false;
    it = worker.gone ? workers_.erase(it) : std::next(it);
  }
  settled_ = joules;
  return shares;
}

}  // namespace switchyard::supervisor
