#pragma once

// The energy of one device, and whose it was: arithmetic over samples and step times.

#include <map>
#include <optional>
#include <string>

#include "common/clock.h"
#include "supervisor/device_sample.h"

namespace switchyard::supervisor {

// What the device has used since the first sample. By the card's counter of energy; a card that has
// none is integrated: the mean of the power at two samples, times the time between them.
class EnergyMeter {
 public:
  void Add(const DeviceSample& sample);
  // nullopt: no sample had a counter or a power.
  std::optional<double> joules() const { return joules_; }

 private:
  void Count(uint64_t millijoules);
  void Integrate(Nanos at, uint64_t milliwatts);

  struct Power {
    Nanos at;
    uint64_t milliwatts;
  };
  std::optional<double> joules_;
  std::optional<uint64_t> counter_;  // at the last sample that had one
  std::optional<Power> power_;       // at the last sample, if it had one
};

// Shares the energy between two samples among the models that ran steps in that time, in proportion
// to the time of their steps. What was used while none did is nobody's.
//
// Workers tell their times when a step ends, and every half second; a sample may come in between.
// So a time is shared out when every worker has been heard since the last sharing.
class EnergyShares {
 public:
  // The worker of `model` has run steps for `total` since it started.
  void Busy(const std::string& model, Nanos total);
  // It has ended, or is about to; what it told still counts. The next one starts from 0.
  void Gone(const std::string& model);
  // The device has used `joules` in all: what of that is new, by model; empty if it must wait.
  std::map<std::string, double> Settle(double joules);

 private:
  struct Worker {
    Nanos total = 0;      // as last told
    double unshared = 0;  // nanoseconds of it and of workers before it, since the last sharing
    bool heard = false;   // since the last sharing
    bool gone = false;
  };
  std::map<std::string, Worker> workers_;  // by model
  std::optional<double> settled_;          // joules; nullopt: nothing was shared yet
};

}  // namespace switchyard::supervisor
