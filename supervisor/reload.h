#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "supervisor/budget_reload.h"
#include "supervisor/catalog.h"
#include "supervisor/devices.h"
#include "supervisor/event_loop.h"
#include "supervisor/plan_runner.h"
#include "supervisor/router.h"

namespace switchyard::supervisor {

// models.d, read and planned. Blocks while the plans are computed, each no longer than
// kLongestPlanning, and no longer than until `stop_fd` is readable or hung up (-1: never): then
// CANCELLED. `starting` is called before each planner.
absl::StatusOr<std::vector<ModelEntry>> ReadCatalog(const std::string& models_dir,
                                                    const Budget& budget, PlanFor purpose,
                                                    int stop_fd,
                                                    std::function<void()> starting = nullptr);

// Writes why models of the catalog cannot be served.
void LogProblems(const std::vector<ModelEntry>& catalog);

// Reads models.d and the configuration file again while others are served: on a thread of its own,
// one reload at a time, and the router gets the result on the loop. Of the file the sizes of
// devices change; the rest is checked as at a start, and waits for one. A bad directory or file
// changes nothing. Destruction cuts a reload short. What has changed, or why nothing has, is
// written to the log, and the latter stands in status.
//
// Models whose planner could not tell are planned again, on that thread, too: as they are in force,
// without a look at models.d.
class Reloader {
 public:
  struct Sources {
    std::string models_dir;
    std::string config_file;     // empty: there is none
    v1::SupervisorConfig flags;  // that win over it
    Nanos plan_again_every = kPlanAgainEvery;
  };
  // `catalog` is what the router has.
  static absl::StatusOr<std::unique_ptr<Reloader>> Create(EventLoop* loop, Router* router,
                                                          Sources sources, InForce in_force,
                                                          std::vector<ModelEntry> catalog);
  ~Reloader();

  void Reload(Reply<v1::ReloadConfigReply> reply);

 private:
  struct Reading {
    InForce next;
    std::vector<ModelEntry> catalog;
    std::vector<std::string> waits_for_restart;
  };
  Reloader(EventLoop* loop, Router* router, Sources sources, InForce in_force,
           std::vector<ModelEntry> catalog);
  void StartNext();
  void StartThread(std::function<void()> work);
  absl::StatusOr<Reading> Read() const;
  void Finish(absl::StatusOr<Reading> read);
  absl::StatusOr<v1::ReloadConfigReply> Apply(Reading read);
  void PlanAgainLater();
  void PlanAgain();
  void FinishAgain(absl::StatusOr<std::vector<ModelEntry>> planned);

  EventLoop* const loop_;
  Router* const router_;
  const Sources sources_;
  InForce in_force_;
  std::vector<ModelEntry> catalog_;  // as it was planned last
  Timers::Id plan_again_ = 0;
  bool planning_again_ = false;
  using Replies = std::vector<Reply<v1::ReloadConfigReply>>;
  Replies serving_;  // by the reading that is under way; all who came before it began
  Replies waiting_;  // for the next one
  UniqueFd stop_read_, stop_write_;  // closing the second one stops the thread
  std::thread thread_;
};

}  // namespace switchyard::supervisor
