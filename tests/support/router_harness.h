#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/router.h"
#include "tests/support/fake_world.h"
#include "tests/support/wait_watch.h"

namespace switchyard::supervisor {

// What a client saw of one request.
struct ClientView {
  RequestId id = 0;
  bool cancelled = false;  // by the client: Finish must not come
  int finishes = 0;
  absl::Status status;
  uint32_t tokens = 0;
  uint32_t starts = 0;
  uint32_t waits = 0;
  bool last = false;  // an event with `finish` came
  uint64_t buffered = 0;
  bool reads = true;
  bool above = false;  // was above the router's bound: owes it OnSinkDrained
  v1::Timings timings;
};

// What a client saw of one Tokenize.
struct CallView {
  RequestId id = 0;
  bool cancelled = false;  // by the client: no reply must come
  int finishes = 0;
  absl::Status status;
};

// What an operator saw of one switch.
struct OperatorView {
  std::vector<v1::SwitchEvent> events;
  int finishes = 0;
  absl::Status status;
};

// A router in a fake world, with every promise checked that can be checked from outside.
class RouterHarness {
 public:
  RouterHarness(uint64_t seed, WorldRules rules, RouterOptions options,
                std::vector<ModelEntry> catalog);
  ~RouterHarness();

  std::shared_ptr<ClientView> Generate(const std::string& model, uint32_t max_tokens,
                                       Nanos timeout = 0, int32_t priority = 0,
                                       const std::string& text = "hello");
  std::shared_ptr<CallView> Tokenize(const std::string& model);
  void Cancel(const std::shared_ptr<ClientView>& client);
  void Cancel(const std::shared_ptr<CallView>& call);
  // The client takes what is buffered.
  void Read(const std::shared_ptr<ClientView>& client);
  std::shared_ptr<OperatorView> Switch(const std::string& model, bool make_default = true);
  absl::Status Pin(const std::string& model, bool pinned);

  // Nothing is heard of workers; what they say meanwhile is at Thaw.
  void Freeze() { frozen_ = true; }
  void Thaw();

  // Strangers use `bytes` of the device from now on.
  void Foreign(const std::string& device, uint64_t bytes);
  void ForeignBetween(const std::string& device, uint64_t least, uint64_t most);
  // A reload of the models of `catalog`, in which the device has more or less to lease. As for a
  // supervisor, what can never fit into that has a problem.
  absl::Status Reload(std::vector<ModelEntry> catalog, const std::string& device, uint64_t bytes);

  // Runs until `done`, at most `most` of virtual time. False if the time was not enough.
  bool RunUntil(const std::function<bool()>& done, Nanos most = 600 * kSecond);
  void RunFor(Nanos time);
  // Drains, and checks that this ends in time, and that nothing is left over. How long it took.
  Nanos DrainAndCheck(Nanos grace);
  v1::ModelStatus StatusOf(const std::string& model) const;
  // Broken promises, "" if none.
  const std::string& violation() const { return violation_; }

  FakeWorld world;
  std::unique_ptr<Router> router;
  std::vector<std::shared_ptr<ClientView>> clients;
  std::vector<std::shared_ptr<CallView>> calls;
  std::vector<std::shared_ptr<OperatorView>> operators;
  bool checks = true;  // after every event

 private:
  void Hear(std::function<void()> what);
  void Echo(std::function<void()> back);
  void Check();
  void CheckSilence();
  void CheckDeafness();
  void CheckDevice(const std::string& name);
  Device DeviceOf(const ModelEntry& entry) const;
  void Violate(const std::string& what);

  RouterOptions options_;
  WaitWatch waits_;
  std::string violation_;
  uint64_t events_ = 0;
  std::map<std::string, uint64_t> leased_;
  bool frozen_ = false;
  Nanos thawed_at_ = 0;
  std::vector<std::function<void()>> unheard_, echoes_;
};

// A model of `chunks` chunks of `chunk` bytes.
ModelEntry FakeModel(const std::string& name, uint64_t fixed, uint64_t chunk, uint32_t chunks,
                     uint64_t kv_smallest, uint64_t kv_useful);

// As the catalog has an entry whose planner was killed.
ModelEntry UnplannedModel(v1::Model model);

}  // namespace switchyard::supervisor
