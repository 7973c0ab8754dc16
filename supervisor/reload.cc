#include "supervisor/reload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "supervisor/plan_runner.h"

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
                   Listed("removed", reply->removed()));
  for (const v1::ReloadConfigReply::DeviceSize& device : reply->devices()) {
    absl::StrAppend(&changes, "; device ", device.name(), ": ", HumanBytes(device.capacity_bytes()),
                    ", before ", HumanBytes(device.capacity_bytes_before()));
  }
  LogInfo("models.d read again", changes.empty() ? "; nothing has changed" : changes);
}

}  // namespace

void LogProblems(const std::vector<ModelEntry>& catalog) {
  for (const ModelEntry& entry : catalog) {
    if (entry.problem.ok()) continue;
    LogWarning("model ", entry.model.name(), " cannot be served: ", entry.problem.message());
  }
}

absl::StatusOr<std::vector<ModelEntry>> ReadCatalog(const std::string& models_dir,
                                                    const Budget& budget, int stop_fd) {
  ASSIGN_OR_RETURN(const std::vector<v1::Model> models, LoadModels(models_dir));
  PlanRunner plans(stop_fd);
  plans.RunAhead(models, budget.devices);
  std::vector<ModelEntry> catalog = PlanCatalog(
      models, budget.devices, budget.host_bytes,
      [&](const v1::Model& model, const std::string& device) { return plans.Plan(model, device); });
  if (plans.stopped()) return absl::CancelledError("told to stop while models were planned");
  return catalog;
}

absl::StatusOr<std::unique_ptr<Reloader>> Reloader::Create(EventLoop* loop, Router* router,
                                                           Sources sources, BudgetInForce budget) {
  std::unique_ptr<Reloader> reloader(
      new Reloader(loop, router, std::move(sources), std::move(budget)));
  ASSIGN_OR_RETURN(auto stop, Pipe());
  reloader->stop_read_ = std::move(stop.first);
  reloader->stop_write_ = std::move(stop.second);
  return reloader;
}

Reloader::Reloader(EventLoop* loop, Router* router, Sources sources, BudgetInForce budget)
    : loop_(loop), router_(router), sources_(std::move(sources)), budget_(std::move(budget)) {}

Reloader::~Reloader() {
  stop_write_.Reset();
  if (thread_.joinable()) thread_.join();
}

void Reloader::Reload(Reply<v1::ReloadConfigReply> reply) {
  waiting_.push_back(std::move(reply));
  if (waiting_.size() == 1) StartNext();
}

void Reloader::StartNext() {
  if (thread_.joinable()) thread_.join();  // it has posted its result: this does not wait
  thread_ = std::thread(
      [this] { loop_->Post([this, read = Read()]() mutable { Finish(std::move(read)); }); });
}

// On the thread; nothing that it reads changes until Finish.
absl::StatusOr<Reloader::Configuration> Reloader::Read() const {
  Configuration read{budget_, {}};
  if (!sources_.config_file.empty()) {
    ASSIGN_OR_RETURN(read.budget, ReloadBudget(sources_.config_file, budget_));
  }
  ASSIGN_OR_RETURN(read.catalog,
                   ReadCatalog(sources_.models_dir, read.budget.budget, stop_read_.get()));
  return read;
}

void Reloader::Finish(absl::StatusOr<Configuration> read) {
  auto reply = std::move(waiting_.front());
  waiting_.pop_front();
  absl::StatusOr<v1::ReloadConfigReply> done =
      read.ok() ? Apply(*std::move(read)) : absl::StatusOr<v1::ReloadConfigReply>(read.status());
  LogReload(done);
  reply(std::move(done));
  if (!waiting_.empty()) StartNext();
}

absl::StatusOr<v1::ReloadConfigReply> Reloader::Apply(Configuration read) {
  ASSIGN_OR_RETURN(v1::ReloadConfigReply reply,
                   router_->Reload(read.catalog, read.budget.budget.devices));
  LogProblems(read.catalog);
  budget_ = std::move(read.budget);
  return reply;
}

}  // namespace switchyard::supervisor
