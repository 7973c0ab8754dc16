#include "supervisor/gpu_monitor.h"

#include <algorithm>
#include <utility>

#include "common/log.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kInterval = kSecond / 2;

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
  bool told = false;
  while (true) {
    asked_.wait(lock, [this] { return stop_ || request_.has_value(); });
    if (stop_) return;
    Ours before = *std::exchange(request_, std::nullopt);
    lock.unlock();
    absl::StatusOr<std::vector<Gpu>> gpus = nvml_->Gpus();
    if (!gpus.ok() && !std::exchange(told, true)) {
      LogWarning("what others use of the GPUs is not known: ", gpus.status().message());
    }
    loop_->Post([alive = alive_, before = std::move(before), gpus = std::move(gpus),
                 samples = nvml_->Samples()]() mutable {
      if (*alive == nullptr) return;
      if (gpus.ok()) (*alive)->OnMemory(before, *gpus);
      (*alive)->OnSamples(std::move(samples));
    });
    lock.lock();
  }
}

void GpuMonitor::OnMemory(const Ours& before, const std::vector<Gpu>& gpus) {
  const Ours now = OursNow();
  for (size_t i = 0; i < devices_.size(); ++i) {
    const std::string& name = devices_[i].name;
    const auto gpu =
        std::find_if(gpus.begin(), gpus.end(), [&](const Gpu& each) { return each.uuid == name; });
    if (gpu == gpus.end()) continue;
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
