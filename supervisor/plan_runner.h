#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// Computes plans with `switchyard-worker --plan`, one short-lived process a plan. Blocks, so that a
// reload does it on a thread of its own.
class PlanRunner {
 public:
  // `stop_fd`: once it is readable or hung up, processes are killed and plans are CANCELLED. -1:
  // never.
  explicit PlanRunner(int stop_fd) : stop_fd_(stop_fd) {}
  bool stopped() const;

  // Plans every model for the device it will most likely get, several at a time; Plan then has the
  // answers at hand.
  void RunAhead(const std::vector<v1::Model>& models, const std::vector<Device>& devices);

  // A catalog's Planner.
  absl::StatusOr<v1::Plan> Plan(const v1::Model& model, const std::string& device);

 private:
  using Key = std::pair<std::string, std::string>;  // the model as text, the device
  const int stop_fd_;
  std::map<Key, absl::StatusOr<v1::Plan>> done_;
};

}  // namespace switchyard::supervisor
