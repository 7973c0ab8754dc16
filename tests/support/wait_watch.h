#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "supervisor/router.h"
#include "tests/support/fake_world.h"

namespace switchyard::supervisor {

// A stopwatch for each request, from outside: what the router itself believes of waiting, it is not
// asked. It sees what a client sees (its arrival, its events), what workers are sent and answer,
// and the configuration.
//
// A request waits from its arrival, or from when it was paused, until it is told more than that it
// waits. That counts but while its model is resident, its weights are on their way to the device,
// or its master is being filled; a turn of the model settles what was waited for it. It may be no
// more than the largest of the bounds that could have been right meanwhile: `max_wait`, or what the
// turn under way, and then the turns of all other models that are wanted, may take.
class WaitWatch {
 public:
  WaitWatch(const FakeWorld* world, const RouterOptions& options,
            const std::vector<ModelEntry>& catalog);

  // Clients.
  void Arrives(const void* client, const std::string& model);
  void Tells(const void* client, const v1::GenerateEvent& event);
  void Leaves(const void* client);
  // Operators: a switch begins or ends; and what is configured.
  void Wants(const std::string& model, bool wants);
  void Pins(const std::string& model, bool pinned);
  void Knows(const std::vector<ModelEntry>& catalog);
  // Workers: what they are sent, and what has arrived of what they say.
  void Sent(Incarnation worker, const v1::ToWorker& message);
  void Ends(Incarnation worker);  // it is told to
  void Says(Incarnation worker, const std::string& model, const v1::FromWorker& message);
  void Gone(Incarnation worker);

  // "" or who has waited for too long.
  std::string Check();

 private:
  struct Worker {
    std::string model;
    Needs needs;
    bool filling = false;
    bool ends = false;
    // Its lease: as it shall be, and as it is; and its motion, since it was at rest.
    uint64_t epoch = 0;
    Bytes granted, held, before;
    Nanos moves_since = 0;  // 0: at rest
    Nanos resident_since = 0;

    bool resident() const { return !ends && needs.Whole(granted) && needs.Whole(held); }
    bool comes() const { return !ends && (needs.Whole(granted) || filling); }
  };
  struct Client {
    std::string model;
    Nanos began = 0;  // where its model's stopwatch stood
    Nanos bound = 0;  // the largest meanwhile
  };
  struct Model {
    ModelEntry entry;
    std::set<const void*> clients;  // that wait
    Nanos held_up = 0;              // so far
    int wanted = 0;                 // by operators
    Incarnation worker = 0;         // the last one
  };

  void Advance();
  void Waits(const void* client);
  void SaysLease(Worker& worker, const v1::LeaseStatus& status);
  void Note(Worker& worker);
  const Worker* WorkerOf(const Model& model) const;
  std::string DeviceOf(const Model& model) const;
  Nanos SwapOf(const Model& model) const;
  Nanos Bound(const std::string& name) const;
  bool Waiting(const Model& model) const;
  void NoteBounds();

  const FakeWorld* world_;
  const RouterOptions& options_;
  std::map<std::string, Model> models_;
  std::map<Incarnation, Worker> workers_;
  std::map<const void*, Client> clients_;  // that have not left
  std::map<std::string, double> slowest_;  // bytes a second, on each device
  Nanos last_ = 0;
};

}  // namespace switchyard::supervisor
