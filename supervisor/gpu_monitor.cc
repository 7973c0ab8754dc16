#include "supervisor/gpu_monitor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kInterval = kSecond / 2;

std::string WhyNot(const absl::StatusOr<std::vector<Gpu>>& gpus, const std::string& device) {
  if (!gpus.ok()) return std::string(gpus.status().message());
  std::string text = absl::StrCat("the driver does not name it among ", gpus->size());
  // One that does not answer may not even say its name.
  for (size_t i = 0; i < gpus->size(); ++i) {
    const Gpu& gpu = (*gpus)[i];
    if (gpu.failure.ok()) continue;
    if (gpu.uuid == device) return std::string(gpu.failure.message());
    absl::StrAppend(&text, "; GPU ", i, ": ", gpu.failure.message());
  }
  return text;
}

}  // namespace

uint64_t ForeignBytes(const Gpu& gpu, uint64_t capacity_bytes, uint64_t held_bytes) {
  const uint64_t others = gpu.used_bytes - std::min(gpu.used_bytes, held_bytes);
  const uint64_t ours_at_most = capacity_bytes + gpu.driver_bytes;
  const uint64_t not_leased = gpu.total_bytes - std::min(gpu.total_bytes, ours_at_most);
  return others - std::min(others, not_leased);
}

GpuMonitor::GpuMonitor(EventLoop* loop, std::unique_ptr<Nvml> nvml, std::vector<Device> devices,
                       Listener listener)
    : loop_(loop),
      nvml_(std::move(nvml)),
      devices_(std::move(devices)),
      listener_(std::move(listener)),
      alive_(std::make_shared<GpuMonitor*>(this)),
      silent_(devices_.size()),
      thread_([this] { Sample(); }) {}

GpuMonitor::~GpuMonitor() {
  *alive_ = nullptr;
  if (timer_) loop_->Stop(*timer_);
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  asked_.notify_all();
  thread_.join();
}

void GpuMonitor::Start() { Ask(); }

void GpuMonitor::AskNow() {
  if (timer_) loop_->Stop(*timer_);
  Ask();
}

GpuMonitor::Ours GpuMonitor::OursNow() const {
  Ours ours;
  for (const Device& device : devices_) ours.push_back(listener_.ours(device.name));
  return ours;
}

void GpuMonitor::Ask() {
  {
    std::lock_guard lock(mu_);
    request_ = OursNow();
  }
  asked_.notify_all();
  timer_ = loop_->Start(kInterval, [this] { Ask(); });
}

void GpuMonitor::Sample() {
  std::unique_lock lock(mu_);
  while (true) {
    asked_.wait(lock, [this] { return stop_ || request_.has_value(); });
    if (stop_) return;
    Ours before = *std::exchange(request_, std::nullopt);
    lock.unlock();
    absl::StatusOr<std::vector<Gpu>> gpus = nvml_->Gpus();
    loop_->Post([alive = alive_, before = std::move(before), gpus = std::move(gpus),
                 samples = nvml_->Samples()]() mutable {
      if (*alive == nullptr) return;
      (*alive)->OnMemory(before, gpus);
      (*alive)->OnSamples(std::move(samples));
    });
    lock.lock();
  }
}

const Gpu* GpuMonitor::Answer(size_t device, const absl::StatusOr<std::vector<Gpu>>& gpus) {
  const std::string& name = devices_[device].name;
  const Gpu* answer = nullptr;
  if (gpus.ok()) {
    const auto gpu = std::find_if(gpus->begin(), gpus->end(), [&](const Gpu& each) {
      return each.uuid == name && each.failure.ok();
    });
    if (gpu != gpus->end()) answer = &*gpu;
  }
  const bool was_silent = silent_[device];
  silent_[device] = answer == nullptr;
  if (answer == nullptr && !was_silent) {
    LogWarning("device ", name, ": what others use of it is not known, and counts as it was last: ",
               WhyNot(gpus, name));
  } else if (answer != nullptr && was_silent) {
    LogInfo("device ", name, ": what others use of it is known again");
  }
  return answer;
}

void GpuMonitor::OnMemory(const Ours& before, const absl::StatusOr<std::vector<Gpu>>& gpus) {
  const Ours now = OursNow();
  for (size_t i = 0; i < devices_.size(); ++i) {
    const std::string& name = devices_[i].name;
    const Gpu* gpu = name == "cpu" ? nullptr : Answer(i, gpus);
    if (gpu == nullptr) continue;
    const OurBytes& was = before[i];
    const OurBytes& is = now[i];
    if (was.settled && is.settled && was.held == is.held) {
      listener_.foreign(name, ForeignBytes(*gpu, is.capacity, is.held));
    } else {
      const uint64_t most = std::max(was.most, is.most), least = std::min(was.least, is.least);
      listener_.foreign_between(name, ForeignBytes(*gpu, is.capacity, most),
                                ForeignBytes(*gpu, is.capacity, least));
    }
  }
}

void GpuMonitor::OnSamples(std::vector<DeviceSample> samples) {
  for (const Device& device : devices_) {
    if (device.name == "cpu") continue;
    const auto found = std::find_if(samples.begin(), samples.end(), [&](const DeviceSample& each) {
      return each.device == device.name;
    });
    DeviceSample sample = found == samples.end() ? DeviceSample() : std::move(*found);
    sample.device = device.name;
    sample.at = loop_->Now();
    listener_.sample(std::move(sample));
  }
}

}  // namespace switchyard::supervisor
