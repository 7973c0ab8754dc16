#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"

namespace switchyard::supervisor {

// How much memory the requests of all clients take that have arrived whole: as bytes until they are
// parsed, then as messages until they run, then as the answer, where that is one message. From any
// thread.
class RequestMemory {
 public:
  // Requests of up to this size have the last quarter to themselves: a few large ones must not
  // keep everybody else out.
  static constexpr uint64_t kSmall = 64 << 10;

  // Less would leave these not one place.
  static constexpr uint64_t kLeast = 4 * kSmall;

  explicit RequestMemory(uint64_t limit) : limit_(limit) {}

  uint64_t used() const { return used_; }

  // What one call has of it; given back at its end. One thread at a time.
  class Charge {
   public:
    explicit Charge(std::shared_ptr<RequestMemory> memory) : memory_(std::move(memory)) {}
    Charge(const Charge&) = delete;
    Charge& operator=(const Charge&) = delete;
    ~Charge() { Release(); }

    // It is `bytes` from now on. RESOURCE_EXHAUSTED, and it is what it was: there is no room.
    absl::Status Resize(uint64_t bytes);
    void Release();

   private:
    const std::shared_ptr<RequestMemory> memory_;
    uint64_t bytes_ = 0;
  };

 private:
  bool Take(uint64_t bytes, uint64_t bound);

  const uint64_t limit_;
  std::atomic<uint64_t> used_ = 0;
};

// INVALID_ARGUMENT: requests would be refused with that, whatever they are.
absl::Status CheckRequestMemory(uint64_t bytes);

}  // namespace switchyard::supervisor
