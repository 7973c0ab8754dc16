#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/supervisor/random_choice.h"
#include "tests/support/router_harness.h"

namespace switchyard::supervisor {

// What became of the requests of many lives, so that one sees what was put to the test.
struct Tally {
  std::map<std::string, uint64_t> ended;  // by status
  uint64_t pauses = 0;
  uint64_t swaps = 0;
  uint64_t workers = 0;

  void Add(const Tally& other) {
    for (const auto& [status, count] : other.ended) ended[status] += count;
    pauses += other.pauses;
    swaps += other.swaps;
    workers += other.workers;
  }
  std::string Text() const {
    std::string text = absl::StrCat(workers, " workers, ", swaps, " leases grown, ", pauses,
                                    " pauses; requests ended");
    for (const auto& [status, count] : ended) absl::StrAppend(&text, " ", status, " ", count);
    return text;
  }
};

// A router through one random life: what clients, operators, strangers and faults do to it, and
// what must hold at its end. What must hold after every event is RouterHarness's.
class RandomLife {
 public:
  explicit RandomLife(uint64_t seed);

  // "" or what went wrong.
  std::string Run();
  Tally Count() const;

 private:
  // random_acts.cc
  void Act();
  void Ask();
  void Rare();
  void Break(FakeWorker& worker);
  void BeStrangers(const Device& device);
  void ReloadChanged(const Device& device);
  void ReloadUnplanned(const Device& device);
  void Reload(const std::vector<ModelEntry>& entries, const Device& device);
  std::string AnyModel();

  // Clients that ask one model again and again.
  struct Crowd {
    std::string model;
    std::vector<std::shared_ptr<ClientView>> clients;
    absl::Status refused;  // the first of them that was not served
  };

  // A supervisor before has left masters.
  void Inherit();
  // No step takes longer than was predicted, whatever the clock does in between.
  void WatchSteps();
  // Nothing goes wrong any more, and devices are as they were. "" or what is wrong.
  std::string EndStorm();
  // Each "" or what is wrong.
  std::string TriedTooOften() const;
  std::string PinsAreKept();
  std::string Serves(const ModelEntry& entry);
  std::string AllServe();
  std::string CrowdsGiveWay();
  bool RunAmid(Crowd& crowd, const std::function<bool()>& done, Nanos most);
  std::string NewcomerIsServed(const ModelEntry& entry, Crowd& crowd);
  std::string Finish();

  int Open() const;
  std::string Waiting() const;
  bool RightlyRefused(const ModelEntry& entry, const absl::Status& status, Nanos took) const;
  uint64_t SmallestPool(const std::string& name) const;

  static constexpr char kBroken[] = "m0";

  RandomChoice choice_;
  uint64_t more_fixed_;  // bytes that a model takes beyond its plan
  RouterOptions options_;
  std::vector<ModelEntry> catalog_;  // of the last reload
  std::unique_ptr<RouterHarness> harness_;
  int calls_ = 0;
  uint64_t forgiven_ = 0;  // times that a model may have been given all its tries anew
};

}  // namespace switchyard::supervisor
