#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "supervisor/bytes.h"
#include "supervisor/ports.h"
#include "switchyard/v1/model.pb.h"

namespace switchyard::supervisor {

struct ModelEntry {
  v1::Model model;  // checkpoint resolved to an absolute path, device to one of ours
  v1::Plan plan;
  // Not OK: the model is FAILED from the start. INVALID_ARGUMENT: it cannot be planned, which is a
  // matter of its own; FAILED_PRECONDITION: it can never fit, or there is no such device.
  absl::Status problem;
  // The problem is not the model's, but its planner's, which could not tell: the next one may. Then
  // `model` names no device, unless its text does.
  bool not_planned = false;
};

// What a duration in models.d or in the configuration may be at most: so that no sum of several,
// over all models, comes near to what a clock can count (292 years).
constexpr Nanos kLongestDuration = Nanos{30} * 24 * 3600 * kSecond;

// Reads every *.textproto of `directory` that is not hidden, in the order of the file names.
// INVALID_ARGUMENT names file:line:column; nothing is returned unless all of it is good.
absl::StatusOr<std::vector<v1::Model>> LoadModels(const std::string& directory);

// One models.d entry from text. `path` opens messages and is what `checkpoint` is relative to.
absl::StatusOr<v1::Model> ParseModel(const std::string& text, const std::string& path);

// The entry as one line of text, as a worker is given it on its command line.
std::string ModelText(const v1::Model& model);

// Reads the supervisor's configuration file. Flags are laid over it by the caller.
absl::StatusOr<v1::SupervisorConfig> LoadConfig(const std::string& path);
absl::StatusOr<v1::SupervisorConfig> ParseConfig(const std::string& text, const std::string& path);

// A name from outside as a message can show it: escaped, and cut after 64 bytes.
std::string ShownName(const std::string& name);

// How often what could not be planned is planned again.
constexpr Nanos kPlanAgainEvery = 300 * kSecond;

// Computes the plan of one model for one device (`switchyard-worker --plan`). INVALID_ARGUMENT is
// the verdict that there is none; any other error says nothing of the model.
using Planner =
    std::function<absl::StatusOr<v1::Plan>(const v1::Model& model, const std::string& device)>;

// Plans every model, on the device it names or else on the first where it fits. What cannot be
// planned or can never fit stays in the catalog with its problem, so that status can show it; of a
// model whose planner could not tell, it is not asked for another device.
std::vector<ModelEntry> PlanCatalog(const std::vector<v1::Model>& models,
                                    const std::vector<Device>& devices, uint64_t host_budget,
                                    const Planner& planner);

// Those that have to be planned again, as they are in force.
std::vector<v1::Model> NotPlanned(const std::vector<ModelEntry>& catalog);
// Puts them, planned again, in their places.
void Replace(std::vector<ModelEntry> planned, std::vector<ModelEntry>& catalog);

Needs NeedsOf(const v1::Plan& plan);

// FAILED_PRECONDITION, with the arithmetic, if the smallest lease can never fit on `device`, or
// neither the master nor a ring into the host budget.
absl::Status CheckFits(const v1::Plan& plan, const Device& device, uint64_t host_budget);

}  // namespace switchyard::supervisor
