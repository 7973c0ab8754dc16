#pragma once

#include <poll.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/unique_fd.h"
#include "switchyard/v1/model.pb.h"

namespace switchyard::supervisor {

// One `switchyard-worker --plan`: started, read as it writes, and taken when it has ended. Nothing
// here waits.
class PlanProcess {
 public:
  struct Order {
    std::string model_text;
    std::string device;
    bool needs_weights = false;  // without weights there is no plan
    int death_pipe = -1;         // when its other end is closed, the process ends
  };
  static absl::StatusOr<std::unique_ptr<PlanProcess>> Start(const Order& order);
  // Killed, unless it has ended. It may hang in the kernel (a file system that does not answer), so
  // it is not waited for, and stays for ReapKilled.
  ~PlanProcess();
  PlanProcess(const PlanProcess&) = delete;
  PlanProcess& operator=(const PlanProcess&) = delete;

  // Its pipes, to poll for input; -1 where one is closed.
  int out() const { return pipes_[0].get(); }
  int err() const { return pipes_[1].get(); }
  // Whether it has closed both, so that its end is near.
  bool silent() const { return !pipes_[0].valid() && !pipes_[1].valid(); }

  // What there is to read; then the plan, or why there is none, once it has ended. INVALID_ARGUMENT
  // if it has given up by itself and said what is wrong: its verdict on the model. UNAVAILABLE if
  // it said why it cannot tell now.
  std::optional<absl::StatusOr<v1::Plan>> Look();

  // Reaps those that were killed, and waits no longer than this for them. Who has not ended by then
  // is looked at the next time.
  static void ReapKilled(Nanos patience);

 private:
  PlanProcess() = default;
  void ReadSome(int pipe);
  absl::StatusOr<v1::Plan> Result(int wait_status) const;

  pid_t pid_ = 0;      // 0: reaped
  UniqueFd pipes_[2];  // standard output, standard error
  std::string text_[2];
  bool too_long_ = false;   // its plan
  bool error_cut_ = false;  // what is kept of its standard error is its end
};

}  // namespace switchyard::supervisor
