#pragma once

// Everything that the router asks of the world, as interfaces, so that tests drive it with fakes.
// All of these are called from the event loop's tasks, and call back by posting to it.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "switchyard/v1/control.pb.h"
#include "switchyard/v1/inference.pb.h"
#include "switchyard/v1/worker.pb.h"

namespace switchyard::supervisor {

namespace v1 = ::switchyard::v1;

// Names one process among all that were ever started for any model; never used twice.
using Incarnation = uint64_t;

// A device as the ledger knows it.
struct Device {
  std::string name;  // "cpu", or a GPU's UUID
  uint64_t capacity_bytes = 0;
  uint64_t reserve_bytes = 0;
};

// What our workers have of a device at one moment, as far as the ledger knows.
struct OurBytes {
  uint64_t capacity = 0;  // that is ours to lease
  uint64_t held = 0;
  uint64_t least = 0;    // that they hold for certain: what they may keep of it
  uint64_t most = 0;     // that they can hold, having been granted so much
  bool settled = false;  // no lease is in motion: `held` is what they have
};

struct WorkerExit {
  int wait_status = 0;                  // of waitpid
  std::vector<std::string> last_lines;  // of its standard error, at most 20
};

// One worker process.
class WorkerPort {
 public:
  virtual ~WorkerPort() = default;
  // In order. Dropped once the worker is gone; OnWorkerGone tells.
  virtual void Send(v1::ToWorker message) = 0;
  // Passes a master's descriptor; to be followed by the UseMaster that names it.
  virtual absl::Status SendMaster(uint64_t master_id) = 0;
  // SIGTERM, or SIGKILL. OnWorkerGone follows when it is reaped.
  virtual void Terminate(bool force) = 0;
  virtual int pid() const = 0;
};

struct LaunchSpec {
  v1::Model model;  // resolved: absolute checkpoint path
  v1::Plan plan;
  std::string device;     // "cpu" or a UUID
  std::string cache_dir;  // may be empty
  uint64_t cache_bytes = 0;
  uint32_t threads = 0;  // cpu: 0 is the worker's choice
  Incarnation incarnation = 0;
};

class WorkerLauncher {
 public:
  virtual ~WorkerLauncher() = default;
  // Messages and the exit arrive at the router as OnWorkerMessage and OnWorkerGone.
  virtual absl::StatusOr<std::unique_ptr<WorkerPort>> Launch(const LaunchSpec& spec) = 0;
};

// The memfds of masters. The supervisor never maps them.
class MasterStore {
 public:
  virtual ~MasterStore() = default;
  virtual absl::StatusOr<uint64_t> Create(const std::string& model, uint64_t bytes) = 0;
  // It is complete, and of this image: may outlive us, for the supervisor that comes next.
  virtual void Keep(uint64_t master_id, const std::string& model, const std::string& image_key) = 0;
  // Nobody wants it any more, nor will. Router::OnMasterFreed follows, when its memory is free.
  virtual void Close(uint64_t master_id) = 0;
  // The same when we end: what was kept stays with whoever keeps it.
  virtual void Leave(uint64_t master_id) = 0;
};

// Whether an event says nothing but that the request waits. With the first one that says more the
// request itself is forgotten.
inline bool OnlyWaits(const v1::GenerateEvent& event) {
  return event.has_waiting() && event.ids_size() == 0 && !event.has_finish() &&
         !event.has_start() && event.text().empty();
}

// One client's stream of one request. Write never blocks.
class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  virtual void Write(v1::GenerateEvent event) = 0;
  // Last call.
  virtual void Finish(absl::Status status) = 0;
  // Bytes that the client has not taken yet. When they fall under half of the router's bound after
  // having been above it, the sink posts Router::OnSinkDrained.
  virtual uint64_t buffered_bytes() const = 0;
};

// A stream of switch events (Switch, Load). The router calls Write at every change.
class SwitchSink {
 public:
  virtual ~SwitchSink() = default;
  virtual void Write(const v1::SwitchEvent& event) = 0;
  virtual void Finish(absl::Status status) = 0;
};

class StatusSink {
 public:
  virtual ~StatusSink() = default;
  virtual void Write(const v1::Status& status) = 0;
  virtual void Finish(absl::Status status) = 0;
};

// One-shot timers on the event loop.
class Timers {
 public:
  virtual ~Timers() = default;
  using Id = uint64_t;
  virtual Id Start(Nanos delay, std::function<void()> fire) = 0;
  virtual void Stop(Id id) = 0;  // after this, `fire` is not called
  virtual Nanos Now() const = 0;
};

// Calls back, as a task, once the thread has come round on which workers and clients are heard.
// While that stands still nobody is, whatever they say.
using Echo = std::function<void(std::function<void()> back)>;

// Tells gRPC health what the router knows.
class HealthPort {
 public:
  virtual ~HealthPort() = default;
  // `service`: "", a service's full name, or "model/<name>".
  virtual void SetServing(const std::string& service, bool serving) = 0;
  // There is no such service any more.
  virtual void Remove(const std::string& service) = 0;
};

}  // namespace switchyard::supervisor
