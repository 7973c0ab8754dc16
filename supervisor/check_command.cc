#include "supervisor/check_command.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/human.h"
#include "supervisor/host_share.h"

namespace switchyard::supervisor {
namespace {

using Json = nlohmann::ordered_json;

uint64_t SmallestLease(const v1::Plan& plan) {
  return plan.fixed_bytes() + plan.image_bytes() + plan.kv_smallest_bytes();
}

std::string Problem(const ModelEntry& entry) {
  return std::string(entry.problem.message().data(), entry.problem.message().size());
}

Json ModelJson(const ModelEntry& entry, const Budget& budget) {
  const v1::Plan& plan = entry.plan;
  const auto share = HostShareOf(plan.image_bytes(), budget.host_bytes);
  Json notes = Json::array();
  for (const std::string& note : plan.notes()) notes.push_back(note);
  return {{"name", entry.model.name()},
          {"family", plan.family()},
          {"architecture", plan.architecture()},
          {"checkpoint", entry.model.checkpoint()},
          {"device", entry.model.device()},
          {"fixed_bytes", plan.fixed_bytes()},
          {"weight_bytes", plan.image_bytes()},
          {"kv_smallest_bytes", plan.kv_smallest_bytes()},
          {"kv_useful_bytes", plan.kv_useful_bytes()},
          {"kv_bytes_per_token", plan.kv_bytes_per_token()},
          {"smallest_bytes", SmallestLease(plan)},
          {"context_length", plan.context_length()},
          {"max_sequences", plan.max_sequences()},
          {"streamed", share && share->streamed},
          {"fits", entry.problem.ok()},
          {"error", Problem(entry)},
          {"notes", notes}};
}

}  // namespace

std::string CheckTable(const Budget& budget, const std::vector<ModelEntry>& catalog) {
  std::string out;
  for (const Device& device : budget.devices) {
    absl::StrAppend(&out, "device ", device.name, ": ", HumanBytes(device.capacity_bytes), ", ",
                    HumanBytes(device.reserve_bytes), " in reserve\n");
  }
  absl::StrAppend(&out,
                  "host memory for masters and paused sequences: ", HumanBytes(budget.host_bytes),
                  "\n\n");
  absl::StrAppendFormat(&out, "%-16s %-10s %10s %10s %12s %12s %10s %9s\n", "MODEL", "FAMILY",
                        "FIXED", "WEIGHTS", "SMALLEST KV", "SMALLEST", "USEFUL KV", "CONTEXT");
  uint64_t host = 0;
  for (const ModelEntry& entry : catalog) {
    const v1::Plan& plan = entry.plan;
    const auto share = HostShareOf(plan.image_bytes(), budget.host_bytes);
    if (share) host += share->bytes;
    absl::StrAppendFormat(&out, "%-16s %-10s %10s %10s %12s %12s %10s %9d\n", entry.model.name(),
                          plan.family(), HumanBytes(plan.fixed_bytes()),
                          HumanBytes(plan.image_bytes()), HumanBytes(plan.kv_smallest_bytes()),
                          HumanBytes(SmallestLease(plan)), HumanBytes(plan.kv_useful_bytes()),
                          plan.context_length());
    for (const std::string& note : plan.notes()) absl::StrAppend(&out, "    ", note, "\n");
    if (share && share->streamed) {
      absl::StrAppend(&out,
                      "    streamed: larger than the host memory, so read from the disk each ",
                      "time, through a ring of ", HumanBytes(share->bytes), "\n");
    }
    if (!entry.problem.ok()) absl::StrAppend(&out, "    FAILED: ", Problem(entry), "\n");
  }
  absl::StrAppend(&out, "\nmasters of all models: ", HumanBytes(host), " of ",
                  HumanBytes(budget.host_bytes), " host memory\n");
  return out;
}

std::string CheckJson(const Budget& budget, const std::vector<ModelEntry>& catalog) {
  Json devices = Json::array(), models = Json::array();
  for (const Device& device : budget.devices) {
    devices.push_back({{"name", device.name},
                       {"capacity_bytes", device.capacity_bytes},
                       {"reserve_bytes", device.reserve_bytes}});
  }
  for (const ModelEntry& entry : catalog) models.push_back(ModelJson(entry, budget));
  const Json document = {
      {"devices", devices}, {"host", {{"budget_bytes", budget.host_bytes}}}, {"models", models}};
  return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace switchyard::supervisor
