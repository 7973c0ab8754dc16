// What must hold between any two events; tests ask after every one.

#include <optional>

#include "absl/strings/str_cat.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

// "" or what is wrong with the model's counts.
std::string AuditCounts(const State& state, const ModelRecord& model) {
  size_t running = 0;
  size_t paused = 0;
  uint64_t since_sum = 0;
  for (const RequestId id : model.requests) {
    const Request& request = *state.requests.at(id);
    running += request.stage == Request::Stage::kRunning ? 1 : 0;
    paused += request.stage == Request::Stage::kPaused ? 1 : 0;
    if (model.waiting.count({-request.priority, request.waiting_since, id}) > 0) {
      since_sum += static_cast<uint64_t>(request.waiting_since);
    }
  }
  const bool right = running == model.running && paused == model.paused &&
                     since_sum == model.since_sum &&
                     model.ages.size() + running == model.requests.size();
  return right ? "" : absl::StrCat("the counts of ", model.name(), " are wrong");
}

}  // namespace

std::string Router::Impl::Audit() const {
  for (const auto& [name, model] : state_.models) {
    if (std::string wrong = AuditCounts(state_, *model); !wrong.empty()) return wrong;
    const LeaseEntry lease = LeaseOf(*model);
    const bool rests = Ready(*model) && model->lease.motion == Motion::kRest;
    if (rests && lease.held.kv < lease.granted.kv) {
      return absl::StrCat(name, " is charged for KV that it does not hold");
    }
    const WaitMeter& meter = model->clock.meter;
    if (!meter.runs() || state_.ending) continue;
    const std::optional<Nanos> due = meter.FirstDue(model->ages, Now());
    if (due && *due < Now() && model->clock.look_at < Now()) {
      return absl::StrCat("a request for ", name, " should have been refused ",
                          (Now() - *due) / kMillisecond, " ms ago");
    }
  }
  return "";
}

const DeviceLedger* Router::Ledger(const std::string& device) const {
  for (const auto& slot : impl_->state().devices) {
    if (slot->ledger.device().name == device) return &slot->ledger;
  }
  return nullptr;
}
const HostLedger& Router::HostAccount() const { return impl_->state().host; }
std::string Router::Audit() const { return impl_->Audit(); }

}  // namespace switchyard::supervisor
