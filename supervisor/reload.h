#pragma once

#include <deque>
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
#include "supervisor/router.h"

namespace switchyard::supervisor {

// models.d, read and planned. Blocks while the plans are computed, but no longer than until
// `stop_fd` is readable or hung up (-1: never): then CANCELLED.
absl::StatusOr<std::vector<ModelEntry>> ReadCatalog(const std::string& models_dir,
                                                    const Budget& budget, int stop_fd);

// Writes why models of the catalog cannot be served.
void LogProblems(const std::vector<ModelEntry>& catalog);

// Reads models.d and the sizes of devices again while others are served: on a thread of its own,
// one reload at a time, and the router gets the result on the loop. A bad directory or file changes
// nothing. Destruction cuts a reload short. What has changed, or why nothing has, is written to the
// log.
class Reloader {
 public:
  struct Sources {
    std::string models_dir;
    std::string config_file;  // empty: the sizes of devices do not change
  };
  static absl::StatusOr<std::unique_ptr<Reloader>> Create(EventLoop* loop, Router* router,
                                                          Sources sources, BudgetInForce budget);
  ~Reloader();

  void Reload(Reply<v1::ReloadConfigReply> reply);

 private:
  struct Configuration {
    BudgetInForce budget;
    std::vector<ModelEntry> catalog;
  };
  Reloader(EventLoop* loop, Router* router, Sources sources, BudgetInForce budget);
  void StartNext();
  absl::StatusOr<Configuration> Read() const;
  void Finish(absl::StatusOr<Configuration> read);
  absl::StatusOr<v1::ReloadConfigReply> Apply(Configuration read);

  EventLoop* const loop_;
  Router* const router_;
  const Sources sources_;
  BudgetInForce budget_;
  std::deque<Reply<v1::ReloadConfigReply>> waiting_;  // the first is being served
  UniqueFd stop_read_, stop_write_;                   // closing the second one stops the thread
  std::thread thread_;
};

}  // namespace switchyard::supervisor
