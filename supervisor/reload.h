#pragma once

#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/catalog.h"
#include "supervisor/devices.h"
#include "supervisor/event_loop.h"
#include "supervisor/router.h"

namespace switchyard::supervisor {

// models.d, read and planned. Blocks while the plans are computed.
absl::StatusOr<std::vector<ModelEntry>> ReadCatalog(const std::string& models_dir,
                                                    const Budget& budget);

// Reads models.d again while others are served: on a thread of its own, one reload at a time, and
// the router gets the result on the loop. A bad directory changes nothing.
class Reloader {
 public:
  Reloader(EventLoop* loop, Router* router, std::string models_dir, Budget budget);
  ~Reloader();

  void Reload(Reply<v1::ReloadConfigReply> reply);

 private:
  void StartNext();
  void Finish(absl::StatusOr<std::vector<ModelEntry>> catalog);

  EventLoop* const loop_;
  Router* const router_;
  const std::string models_dir_;
  const Budget budget_;
  std::deque<Reply<v1::ReloadConfigReply>> waiting_;  // the first is being served
  std::thread thread_;
};

}  // namespace switchyard::supervisor
