#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "switchyard/v1/worker.pb.h"
#include "tests/support/fake_worker_faults.h"

namespace switchyard::testing {

namespace v1 = ::switchyard::v1;

// The sizes that every fake model has.
v1::Plan FakePlan(const v1::Model& model);

// What a fake worker answers. It has no weights: a sequence's token i is the id i and the text
// "t<i> ", one step every SWITCHYARD_FAKE_STEP_US (default 1000; 0: as fast as it goes).
class Session {
 public:
  // `send` is called from several threads, never two at once.
  Session(v1::Plan plan, Faults faults, std::function<void(v1::FromWorker)> send);
  ~Session();

  void OnMessage(const v1::ToWorker& message);

 private:
  struct Sequence {
    v1::GenerateRequest request;
    uint32_t prompt_tokens = 0;
    uint32_t max_tokens = 0;
    uint32_t tokens = 0;
    bool suspended = false;
    bool paused = false;
  };

  // With mutex_ held.
  void UseMaster(const v1::UseMaster& command);
  void SetLease(const v1::SetLease& command);
  void Submit(const v1::Submit& command);
  bool Whole() const;
  void Acknowledge(const std::string& error);
  void AcknowledgeIfDrained();
  bool CanStep() const;
  v1::FromWorker Step();
  void AddToken(uint64_t id, Sequence* sequence, v1::StepEvents* events);

  void RunSteps();

  const v1::Plan plan_;
  Faults faults_;
  const std::function<void(v1::FromWorker)> send_;
  std::mutex mutex_;
  std::condition_variable changed_;
  v1::LeaseBytes held_;
  v1::SetLease wanted_;
  bool unacknowledged_ = false;  // a shrink waits for the running sequences
  std::map<uint64_t, Sequence> sequences_;
  uint64_t steps_ = 0;
  bool ending_ = false;
  std::thread stepper_;
};

}  // namespace switchyard::testing
