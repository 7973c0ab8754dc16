// With stored_descriptors.cc the only file that includes libsystemd.
#include "supervisor/service_manager.h"

#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/notify_socket.h"
#include "supervisor/status_line.h"

namespace switchyard::supervisor {
namespace {

constexpr uint32_t kStatusIntervalMs = 1000;
// What is stuck may be free in a moment, and one period later it is systemd's deadline.
constexpr Nanos kLookAgain = kSecond;
constexpr Nanos kResend = kSecond;

uint64_t MonotonicMicroseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

}  // namespace

class ServiceManager::StatusTeller final : public StatusSink {
 public:
  void Write(const v1::Status& status) override {
    std::string line = StatusLine(status);
    if (silent || line == told_) return;
    told_ = std::move(line);
    Notify(absl::StrCat("STATUS=", told_));
  }
  void Finish(absl::Status) override {}

  bool silent = false;

 private:
  std::string told_;
};

ServiceManager::ServiceManager(Timers* timers, Router* router) : timers_(timers), router_(router) {}

ServiceManager::~ServiceManager() {
  if (pet_ != 0) timers_->Stop(pet_);
  OnWaitingNotifications(nullptr);
  if (resend_ != 0) timers_->Stop(resend_);
}

void ServiceManager::Ready() {
  if (std::getenv("NOTIFY_SOCKET") == nullptr) return;
  OnWaitingNotifications([this] { ResendLater(); });
  Notify("READY=1");
  status_ = std::make_shared<StatusTeller>();
  router_->WatchStatus(kStatusIntervalMs, status_);
  uint64_t allowed_us = 0;
  if (::sd_watchdog_enabled(0, &allowed_us) <= 0) return;
  period_ = static_cast<Nanos>(allowed_us / 2) * 1000;
  PetWatchdog();
}

// A timer of the event loop: that this runs is the proof that the loop turns.
void ServiceManager::PetWatchdog() {
  const std::string stuck = router_->Stuck();
  stuck.empty() ? Notify("WATCHDOG=1") : LogError("the watchdog is not told: ", stuck);
  pet_ = timers_->Start(stuck.empty() ? period_ : std::min(period_, kLookAgain),
                        [this] { PetWatchdog(); });
}

void ServiceManager::ResendLater() {
  if (resend_ != 0) return;
  resend_ = timers_->Start(kResend, [this] {
    resend_ = 0;
    if (!SendWaitingNotifications()) ResendLater();
  });
}

void ServiceManager::Reloading() {
  Notify(absl::StrCat("RELOADING=1\nMONOTONIC_USEC=", MonotonicMicroseconds()));
}

void ServiceManager::Reloaded() { Notify("READY=1"); }

void ServiceManager::Stopping() {
  if (status_) status_->silent = true;
  Notify("STOPPING=1\nSTATUS=draining");
}

}  // namespace switchyard::supervisor
