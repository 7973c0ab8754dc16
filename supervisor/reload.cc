#include "supervisor/reload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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
  if (!reply.ok()) return LogError("models.d is not changed: ", reply.status().message());
  const std::string changes =
      absl::StrCat(Listed("added", reply->added()), Listed("changed", reply->changed()),
                   Listed("removed", reply->removed()));
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
                                                           std::string models_dir, Budget budget) {
  std::unique_ptr<Reloader> reloader(
      new Reloader(loop, router, std::move(models_dir), std::move(budget)));
  ASSIGN_OR_RETURN(auto stop, Pipe());
  reloader->stop_read_ = std::move(stop.first);
  reloader->stop_write_ = std::move(stop.second);
  return reloader;
}

Reloader::Reloader(EventLoop* loop, Router* router, std::string models_dir, Budget budget)
    : loop_(loop),
      router_(router),
      models_dir_(std::move(models_dir)),
      budget_(std::move(budget)) {}

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
  thread_ = std::thread([this] {
    loop_->Post([this, catalog = ReadCatalog(models_dir_, budget_, stop_read_.get())]() mutable {
      Finish(std::move(catalog));
    });
  });
}

void Reloader::Finish(absl::StatusOr<std::vector<ModelEntry>> catalog) {
  auto reply = std::move(waiting_.front());
  waiting_.pop_front();
  if (catalog.ok()) LogProblems(*catalog);
  absl::StatusOr<v1::ReloadConfigReply> done =
      catalog.ok() ? router_->Reload(*std::move(catalog)) : catalog.status();
  LogReload(done);
  reply(std::move(done));
  if (!waiting_.empty()) StartNext();
}

}  // namespace switchyard::supervisor
