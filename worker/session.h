#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/unique_fd.h"
#include "kernels/ops.h"
#include "switchyard/v1/worker.pb.h"
#include "worker/descriptors.h"
#include "worker/device/device.h"
#include "worker/engine_host.h"
#include "worker/heartbeat.h"
#include "worker/master.h"
#include "worker/model/image_cache.h"
#include "worker/opened_model.h"
#include "worker/outbox.h"
#include "worker/requests.h"

namespace switchyard::worker {

// A worker without its connection: what it does with each message. Says Hello at once.
class Session {
 public:
  struct Parts {
    const OpenedModel& model;
    std::unique_ptr<Device> device;
    std::unique_ptr<kernels::Ops> ops;
    UniqueFd descriptor_socket;
    std::string cache_dir;
    uint64_t cache_bytes = kImageCacheBytes;
    std::string remark = {};  // for people, on how the worker runs; empty: none
    Outbox& outbox;
    std::function<void()>
        on_shutdown;  // called at most once a Shutdown; must not destroy the session
  };
  explicit Session(Parts parts);
  ~Session() { Stop(); }

  // Never blocks.
  void Handle(v1::ToWorker message);
  // Ends everything that runs, without answers. May take as long as a step.
  void Stop();

 private:
  Parts parts_;
  SteadyClock clock_;
  Descriptors descriptors_;
  Requests requests_;
  EngineHost engine_;
  Master master_;
  Heartbeats heartbeats_;
};

}  // namespace switchyard::worker
