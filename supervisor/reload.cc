#include "supervisor/reload.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "supervisor/config_check.h"

namespace switchyard::supervisor {
namespace {

template <typename Names>
std::string Listed(const char* what, const Names& names) {
  return names.empty() ? "" : absl::StrCat("; ", what, " ", absl::StrJoin(names, ", "));
}

void LogReload(const absl::StatusOr<v1::ReloadConfigReply>& reply) {
  if (!reply.ok()) return LogError("the configuration is not changed: ", reply.status().message());
  std::string changes =
      absl::StrCat(Listed("added", reply->added()), Listed("changed", reply->changed()),
                   Listed("removed", reply->removed()),
                   Listed("had failed, tried again:", reply->tried_again()));
  for (const v1::ReloadConfigReply::DeviceSize& device : reply->devices()) {
    absl::StrAppend(&changes, "; device ", device.name(), ": ", HumanBytes(device.capacity_bytes()),
                    ", before ", HumanBytes(device.capacity_bytes_before()));
  }
  if (!reply->default_model_before().empty()) {
    absl::StrAppend(&changes, "; default model: ", reply->default_model(), ", before ",
                    reply->default_model_before());
  }
  const std::string waits = Listed("waits for a restart:", reply->waits_for_restart());
  const std::string not_planned = Listed("not planned:", reply->not_planned());
  LogInfo("models.d read again", changes.empty() ? "; nothing has changed" : changes, waits,
          not_planned);
}

absl::StatusOr<std::vector<ModelEntry>> PlanModels(const std::vector<v1::Model>& models,
                                                   const Budget& budget, PlanRunner& plans) {
  plans.RunAhead(models, budget.devices);
  std::vector<ModelEntry> catalog = PlanCatalog(
      models, budget.devices, budget.host_bytes,
      [&](const v1::Model& model, const std::string& device) { return plans.Plan(model, device); });
  if (plans.stopped()) return absl::CancelledError("told to stop while models were planned");
  return catalog;
}

// What the thread has made stays, between what large requests had, and keeps the C library from
// giving that back.
void GiveFreePagesBack() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace

void LogProblems(const std::vector<ModelEntry>& catalog) {
  for (const ModelEntry& entry : catalog) {
    if (entry.problem.ok()) continue;
    LogWarning(
        "model ", entry.model.name(),
        entry.not_planned ? " could not be planned, and is tried again: " : " cannot be served: ",
        entry.problem.message());
  }
}

absl::StatusOr<std::vector<ModelEntry>> ReadCatalog(const std::string& models_dir,
                                                    const Budget& budget, PlanFor purpose,
                                                    int stop_fd, std::function<void()> starting) {
  ASSIGN_OR_RETURN(const std::vector<v1::Model> models, LoadModels(models_dir));
  PlanRunner plans(purpose, stop_fd, kLongestPlanning, std::move(starting));
  return PlanModels(models, budget, plans);
}

absl::StatusOr<std::unique_ptr<Reloader>> Reloader::Create(EventLoop* loop, Router* router,
                                                           Sources sources, InForce in_force,
                                                           std::vector<ModelEntry> catalog) {
  std::unique_ptr<Reloader> reloader(
      new Reloader(loop, router, std::move(sources), std::move(in_force), std::move(catalog)));
  ASSIGN_OR_RETURN(auto stop, Pipe());
  reloader->stop_read_ = std::move(stop.first);
  reloader->stop_write_ = std::move(stop.second);
  reloader->PlanAgainLater();
  return reloader;
}

Reloader::Reloader(EventLoop* loop, Router* router, Sources sources, InForce in_force,
                   std::vector<ModelEntry> catalog)
    : loop_(loop),
      router_(router),
      sources_(std::move(sources)),
      in_force_(std::move(in_force)),
      catalog_(std::move(catalog)) {}

Reloader::~Reloader() {
  if (plan_again_ != 0) loop_->Stop(plan_again_);
  stop_write_.Reset();
  if (thread_.joinable()) thread_.join();
}

void Reloader::Reload(Reply<v1::ReloadConfigReply> reply) {
  waiting_.push_back(std::move(reply));
  if (serving_.empty() && !planning_again_) StartNext();
}

void Reloader::StartThread(std::function<void()> work) {
  if (thread_.joinable()) thread_.join();  // it has posted its result: this hardly waits
  thread_ = std::thread([work = std::move(work)] {
    work();
    GiveFreePagesBack();
  });
}

void Reloader::StartNext() {
  serving_ = std::exchange(waiting_, {});
  StartThread(
      [this] { loop_->Post([this, read = Read()]() mutable { Finish(std::move(read)); }); });
}

// On the thread; nothing that it reads changes until Finish.
absl::StatusOr<Reloader::Reading> Reloader::Read() const {
  Reading read{in_force_, {}, {}};
  std::string default_model;
  if (!sources_.config_file.empty()) {
    ASSIGN_OR_RETURN(const Configuration told,
                     ReadConfiguration(sources_.config_file, sources_.flags));
    ASSIGN_OR_RETURN(read.next, ReloadBudget(told, in_force_));
    read.waits_for_restart = WaitsForRestart(in_force_.told, told);
    default_model = told.config.default_model();
  }
  ASSIGN_OR_RETURN(read.catalog, ReadCatalog(sources_.models_dir, read.next.budget, PlanFor::kServe,
                                             stop_read_.get()));
  RETURN_IF_ERROR(CheckDefaultModel(default_model, read.catalog));
  return read;
}

void Reloader::Finish(absl::StatusOr<Reading> read) {
  const Replies replies = std::exchange(serving_, {});
  absl::StatusOr<v1::ReloadConfigReply> done =
      read.ok() ? Apply(*std::move(read)) : absl::StatusOr<v1::ReloadConfigReply>(read.status());
  LogReload(done);
  router_->NoteReload(done.status());
  for (const auto& reply : replies) reply(done);
  waiting_.empty() ? PlanAgainLater() : StartNext();
}

absl::StatusOr<v1::ReloadConfigReply> Reloader::Apply(Reading read) {
  ASSIGN_OR_RETURN(v1::ReloadConfigReply reply,
                   router_->Reload(read.catalog, read.next.budget.devices));
  LogProblems(read.catalog);
  for (const std::string& name : router_->TryFailedAgain()) reply.add_tried_again(name);
  reply.mutable_waits_for_restart()->Assign(read.waits_for_restart.begin(),
                                            read.waits_for_restart.end());
  in_force_ = std::move(read.next);
  catalog_ = std::move(read.catalog);
  return reply;
}

void Reloader::PlanAgainLater() {
  if (plan_again_ != 0) loop_->Stop(std::exchange(plan_again_, 0));
  if (NotPlanned(catalog_).empty()) return;
  plan_again_ = loop_->Start(sources_.plan_again_every, [this] {
    plan_again_ = 0;
    if (serving_.empty()) PlanAgain();  // else the reload does, and what it leaves comes later
  });
}

void Reloader::PlanAgain() {
  planning_again_ = true;
  StartThread([this, models = NotPlanned(catalog_), budget = in_force_.budget] {
    PlanRunner plans(PlanFor::kServe, stop_read_.get());
    loop_->Post([this, planned = PlanModels(models, budget, plans)]() mutable {
      FinishAgain(std::move(planned));
    });
  });
}

void Reloader::FinishAgain(absl::StatusOr<std::vector<ModelEntry>> planned) {
  planning_again_ = false;
  if (planned.ok()) {
    LogProblems(*planned);
    std::vector<ModelEntry> catalog = catalog_;
    Replace(*std::move(planned), catalog);
    const auto reply = router_->Reload(catalog);
    if (reply.ok()) catalog_ = std::move(catalog);
    LogInfo("planned again", reply.ok() ? Listed("changed", reply->changed()) : "",
            reply.ok() ? Listed("not planned:", reply->not_planned())
                       : absl::StrCat(", in vain: ", reply.status().message()));
  }
  waiting_.empty() ? PlanAgainLater() : StartNext();
}

}  // namespace switchyard::supervisor
