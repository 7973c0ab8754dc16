#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/unique_fd.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// What a plan is for: `switchyard check` tells the sizes of a checkpoint before its weights are
// there; whoever serves needs them.
enum class PlanFor : uint8_t { kCheck, kServe };

// How long a planner may take. It reads headers and a tokenizer: those of hundreds of files, from a
// slow disk that the others read at the same time, take a third of that. What takes longer hangs.
constexpr Nanos kLongestPlanning = 30 * kSecond;

// Computes plans with `switchyard-worker --plan`, one short-lived process a plan, several at a
// time. Blocks, so that a reload does it on a thread of its own; but for no planner longer than
// `longest`: then it is killed, and its plan is DEADLINE_EXCEEDED. Planners end with this process,
// and with the thread that calls.
class PlanRunner {
 public:
  // `stop_fd`: once it is readable or hung up, processes are killed and plans are CANCELLED. -1:
  // never. `starting` is called before each planner, by whoever has to say that this may take
  // another `longest`.
  PlanRunner(PlanFor purpose, int stop_fd, Nanos longest = kLongestPlanning,
             std::function<void()> starting = nullptr)
      : purpose_(purpose), stop_fd_(stop_fd), longest_(longest), starting_(std::move(starting)) {}
  bool stopped() const;

  // Plans every model for the device it will most likely get; Plan then has the answers at hand.
  void RunAhead(const std::vector<v1::Model>& models, const std::vector<Device>& devices);

  // A catalog's Planner.
  absl::StatusOr<v1::Plan> Plan(const v1::Model& model, const std::string& device);

 private:
  using Key = std::pair<std::string, std::string>;  // the model as text, the device
  struct Wanted {
    Key key;
    std::string checkpoint;
  };
  struct Running;
  static Wanted For(const v1::Model& model, const std::string& device);
  void Run(std::deque<Wanted> wanted);
  void StartOne(Wanted wanted, std::vector<Running>& running);
  void Wait(const std::vector<Running>& running) const;
  void Look(std::vector<Running>& running);
  absl::Status NotAnswered(const std::string& checkpoint) const;

  const PlanFor purpose_;
  const int stop_fd_;
  const Nanos longest_;
  const std::function<void()> starting_;
  const SteadyClock clock_;
  UniqueFd death_read_, death_write_;  // the planners', made with the first of them
  std::map<Key, absl::StatusOr<v1::Plan>> done_;
};

}  // namespace switchyard::supervisor
