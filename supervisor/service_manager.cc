// With stored_descriptors.cc the only file that includes libsystemd.
#include "supervisor/service_manager.h"

#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "supervisor/notify_socket.h"
#include "supervisor/status_line.h"

namespace switchyard::supervisor {
namespace {

constexpr uint32_t kStatusIntervalMs = 1000;
// What is stuck may be free in a moment, and one period later it is systemd's deadline.
constexpr Nanos kLookAgain = kSecond;
constexpr Nanos kResend = kSecond;
constexpr Nanos kLookForReadiness = 100 * kMillisecond;
constexpr Nanos kLookForMissing = kSecond;  // that is ready without it
// What READY may still take, and how often that is told: with room for a busy machine.
constexpr Nanos kExtension = 60 * kSecond;
constexpr Nanos kExtendEvery = 15 * kSecond;
constexpr Nanos kExtensionSlack = 30 * kSecond;  // until something else asks for more

uint64_t MonotonicMicroseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

}  // namespace

class ServiceManager::StatusTeller final : public StatusSink {
 public:
  void Write(const v1::Status& status) override {
    models_ = StatusLine(status);
    Tell();
  }
  void Finish(absl::Status) override {}
  // What is to be said behind the models.
  void SetNote(std::string note) { note_ = std::move(note); }
  void Tell() {
    std::string line = absl::StrCat(models_, note_);
    if (silent || models_.empty() || line == told_) return;
    told_ = std::move(line);
    Notify(absl::StrCat("STATUS=", told_));
  }
  // The line of this moment, for whoever tells it himself: Write comes once in a while only.
  std::string Fresh(const v1::Status& status) {
    models_ = StatusLine(status);
    told_ = absl::StrCat(models_, note_);
    return absl::StrCat("STATUS=", told_);
  }

  bool silent = false;

 private:
  std::string models_, note_;
  std::string told_;
};

ServiceManager::ServiceManager(Timers* timers, Router* router, Echo echo)
    : timers_(timers), router_(router), echo_(std::move(echo)) {}

ServiceManager::~ServiceManager() {
  if (pet_ != 0) timers_->Stop(pet_);
  if (look_ != 0) timers_->Stop(look_);
  OnWaitingNotifications(nullptr);
  if (resend_ != 0) timers_->Stop(resend_);
}

bool ServiceManager::Listens() { return std::getenv("NOTIFY_SOCKET") != nullptr; }

void ServiceManager::NotReadyFor(Nanos time) {
  Notify(absl::StrCat("EXTEND_TIMEOUT_USEC=", (time + kExtensionSlack) / 1000));
}

void ServiceManager::Start() {
  if (!Listens()) return;
  OnWaitingNotifications([this] { ResendLater(); });
  status_ = std::make_shared<StatusTeller>();
  started_at_ = got_on_at_ = timers_->Now();
  LookAtReadiness();
  router_->WatchStatus(kStatusIntervalMs, status_);
  uint64_t allowed_us = 0;
  if (::sd_watchdog_enabled(0, &allowed_us) <= 0) return;
  period_ = static_cast<Nanos>(allowed_us / 2) * 1000;
  PetWatchdog();
}

// Until it is ready, and then until nothing is missing that it is ready without.
void ServiceManager::LookAtReadiness() {
  const std::vector<Standing> models = router_->Standings();
  NoteProgress(models);
  const Nanos now = timers_->Now();
  const Readiness readiness = ReadinessOf(models, now - started_at_, now - got_on_at_);
  TellReadiness(readiness);
  look_ = 0;
  if (readiness.missing.empty()) return;
  look_ =
      timers_->Start(ready_ ? kLookForMissing : kLookForReadiness, [this] { LookAtReadiness(); });
}

void ServiceManager::NoteProgress(const std::vector<Standing>& models) {
  uint64_t progress = 0;
  for (const Standing& model : models) progress = progress * 31 + model.progress;
  if (std::exchange(progress_, progress) != progress) got_on_at_ = timers_->Now();
}

void ServiceManager::TellReadiness(const Readiness& readiness) {
  const std::string missing = absl::StrJoin(readiness.missing, ", ");
  const bool now = readiness.ready && !std::exchange(ready_, true);
  const char* how = ready_ ? "; ready without " : "; not ready, waits for ";
  status_->SetNote(missing.empty() ? "" : absl::StrCat(how, missing));
  if (now) {
    if (!missing.empty()) LogWarning("ready, though these do not answer yet: ", missing);
    TellReady();
  } else {
    status_->Tell();
  }
  if (ready_ || (extended_at_ != 0 && timers_->Now() - extended_at_ < kExtendEvery)) return;
  extended_at_ = timers_->Now();
  Notify(absl::StrCat("EXTEND_TIMEOUT_USEC=", kExtension / 1000));
}

void ServiceManager::TellReady() {
  Notify("READY=1");
  Notify(status_->Fresh(router_->GetStatus()));
}

std::string ServiceManager::Stuck() const {
  if (heard_ != nullptr && !*heard_) return "the thread that hears calls and workers stands still";
  return router_->Stuck();
}

// A timer of the event loop: that this runs is the proof that the loop turns. That calls are heard
// the echo proves.
void ServiceManager::PetWatchdog() {
  const std::string stuck = Stuck();
  if (stuck.empty()) {
    Notify("WATCHDOG=1");
    heard_ = std::make_shared<bool>(false);
    echo_([heard = heard_] { *heard = true; });
  } else {
    LogError("the watchdog is not told: ", stuck);
  }
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
  if (!ready_ || stopping_) return;
  Notify(absl::StrCat("RELOADING=1\nMONOTONIC_USEC=", MonotonicMicroseconds()));
}

void ServiceManager::Reloaded() {
  if (ready_ && !stopping_) TellReady();
}

void ServiceManager::Stopping(Nanos within) {
  stopping_ = true;
  if (look_ != 0) timers_->Stop(std::exchange(look_, 0));
  if (status_) status_->silent = true;
  Notify(absl::StrCat("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=", within / 1000));
}

}  // namespace switchyard::supervisor
