#pragma once

#include "switchyard/v1/worker.pb.h"

namespace switchyard::worker {

// Where every message to the supervisor goes, in the order of the calls. From any thread; never
// blocks, and never calls back.
class Outbox {
 public:
  virtual ~Outbox() = default;
  virtual void Send(v1::FromWorker message) = 0;
};

}  // namespace switchyard::worker
