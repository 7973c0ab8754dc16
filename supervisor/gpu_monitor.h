#pragma once

// What strangers use of the GPUs' memory, and what the GPUs do, as it happens.

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/event_loop.h"
#include "supervisor/nvml.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// What is used on a GPU and is not ours, as far as it reaches into the capacity that we lease from:
// strangers take first what we do not lease.
uint64_t ForeignBytes(const Gpu& gpu, uint64_t capacity_bytes, uint64_t held_bytes);

// Asks the driver every half second, on a thread of its own: it can take milliseconds. What
// strangers have is known only if what we held was at rest, and the same, before and after it was
// asked; else it lies between what is used beyond all that we were granted, and beyond what we
// certainly held.
class GpuMonitor {
 public:
  struct Listener {
    std::function<OurBytes(const std::string& device)> ours;
    std::function<void(const std::string& device, uint64_t bytes)> foreign;
    std::function<void(const std::string& device, uint64_t least, uint64_t most)> foreign_between;
    // Every time, whatever is in motion; empty for a GPU that does not answer.
    std::function<void(DeviceSample sample)> sample;
  };
  GpuMonitor(EventLoop* loop, std::unique_ptr<Nvml> nvml, std::vector<Device> devices,
             Listener listener);
  ~GpuMonitor();

  void Start();   // from a task, or before the loop runs
  void AskNow();  // does not wait for the next half second

 private:
  using Ours = std::vector<OurBytes>;  // of devices_
  Ours OursNow() const;
  void Ask();
  void Sample();  // the thread
  void OnMemory(const Ours& before, const absl::StatusOr<std::vector<Gpu>>& gpus);
  // Null if `device` does not answer. Says in the log when that begins, and when it ends.
  const Gpu* Answer(size_t device, const absl::StatusOr<std::vector<Gpu>>& gpus);
  void OnSamples(std::vector<DeviceSample> samples);

  EventLoop* const loop_;
  const std::unique_ptr<Nvml> nvml_;
  const std::vector<Device> devices_;
  const Listener listener_;
  std::shared_ptr<GpuMonitor*> alive_;  // what is posted may come after our end
  std::optional<Timers::Id> timer_;
  std::vector<bool> silent_;  // of devices_

  std::mutex mu_;
  std::condition_variable asked_;
  std::optional<Ours> request_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace switchyard::supervisor
