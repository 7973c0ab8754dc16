#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace switchyard::worker {

// Where Residency copies an image from, front to back. Wake is for any thread, the rest for the
// copying thread.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Bytes [begin, end) are about to be taken in order, unless it is said otherwise later.
  virtual void Expect(uint64_t begin, uint64_t end) {}
  // Waits for bytes at `offset`: at most `most`, and perhaps fewer. They stay until the copy that
  // Launched names is done; without one, until the next Take or Expect. `wanted` is asked now and
  // after each Wake; CANCELLED when it says no. Else the error that keeps them from coming.
  virtual absl::StatusOr<std::span<const std::byte>> Take(uint64_t offset, uint64_t most,
                                                          const std::function<bool()>& wanted) = 0;
  // Whether what was taken is only lent: then Launched follows each Take whose copy was launched,
  // with an event after it.
  virtual bool lends() const { return false; }
  virtual void Launched(std::shared_ptr<Event> copied) {}
  virtual void Wake() = 0;
};

// A master, complete or being filled: a prefix of it may be read. SetReady is for any thread.
class MasterSource final : public WeightSource {
 public:
  MasterSource(std::span<const std::byte> master, uint64_t ready)
      : master_(master), ready_(ready) {}
  // Complete.
  explicit MasterSource(std::span<const std::byte> master) : MasterSource(master, master.size()) {}
  // There will be none.
  explicit MasterSource(absl::Status why) : failed_(std::move(why)), ready_(0) {}

  void SetReady(uint64_t bytes);  // never fewer than before
  std::span<const std::byte> master() const { return master_; }

  absl::StatusOr<std::span<const std::byte>> Take(uint64_t offset, uint64_t most,
                                                  const std::function<bool()>& wanted) override;
  void Wake() override;

 private:
  const std::span<const std::byte> master_;
  const absl::Status failed_;
  std::mutex mu_;
  std::condition_variable changed_;
  uint64_t ready_;
};

}  // namespace switchyard::worker
