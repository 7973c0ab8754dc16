#pragma once

// A worker of our own, asked without a supervisor between: what `serve` holds routing against.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "switchyard/v1/worker.pb.h"

namespace switchyard::bench {

class DirectWorker {
 public:
  // Starts switchyard-worker (beside this program, or $SWITCHYARD_WORKER), fills its master and
  // makes the model resident.
  static absl::StatusOr<std::unique_ptr<DirectWorker>> Start(const std::string& checkpoint);
  ~DirectWorker();

  // Seconds from sending the request to its first token; returns when it has ended.
  absl::StatusOr<double> FirstToken(const v1::GenerateRequest& request);

 private:
  class Stream;
  DirectWorker() = default;
  absl::Status Spawn(const std::string& checkpoint);
  absl::Status BecomeResident();

  pid_t pid_ = 0;
  UniqueFd connection_, descriptors_, death_;
  std::unique_ptr<Stream> stream_;
  uint64_t next_id_ = 1;
};

}  // namespace switchyard::bench
