#include "cli/render.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/output.h"
#include "cli/render_devices.h"
#include "cli/table.h"
#include "common/human.h"
#include "common/printable.h"

namespace switchyard::cli {
namespace {

namespace v1 = ::switchyard::v1;
using Models = google::protobuf::RepeatedPtrField<v1::ModelStatus>;

// The first line of an error; the rest (the last lines of a log) is in --json.
std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// What is wrong now, else what went wrong.
std::string FailureNote(const v1::ModelStatus& model) {
  if (!model.error().empty()) return FirstLine(model.error());
  std::vector<std::string> past;
  if (model.restarts() > 0) past.push_back(absl::StrCat("restarts ", model.restarts()));
  if (const std::string last = FirstLine(model.last_failure()); !last.empty()) {
    past.push_back(absl::StrCat("last: ", last));
  }
  return absl::StrJoin(past, "; ");
}

std::string Notes(const v1::ModelStatus& model) {
  std::vector<std::string> notes;
  if (model.is_default()) notes.push_back("default");
  if (model.pinned()) notes.push_back("pinned");
  if (model.streamed()) notes.push_back("streamed");
  if (model.running() > 0) notes.push_back(absl::StrCat(model.running(), " running"));
  if (model.queued() > 0) notes.push_back(absl::StrCat(model.queued(), " queued"));
  if (model.paused() > 0) notes.push_back(absl::StrCat(model.paused(), " paused"));
  if (std::string failure = FailureNote(model); !failure.empty()) notes.push_back(failure);
  return absl::StrJoin(notes, ", ");
}

std::string DefaultText(const v1::Status& status) {
  if (status.default_model().empty()) return "";
  const bool failed =
      std::any_of(status.models().begin(), status.models().end(), [](const v1::ModelStatus& model) {
        return model.is_default() && model.state() == v1::FAILED;
      });
  return absl::StrCat(
      "default model: ", Printable(status.default_model()),
      failed ? ", which has failed: requests that name no model are refused\n" : "\n");
}

Json NamesJson(const google::protobuf::RepeatedPtrField<std::string>& names) {
  Json array = Json::array();
  for (const std::string& name : names) array.push_back(name);
  return array;
}

}  // namespace

bool PrintJson(const Json& document) {
  return Print(document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

const char* StateName(v1::ModelState state) {
  switch (state) {
    case v1::WARM:
      return "warm";
    case v1::LOADING:
      return "loading";
    case v1::RESIDENT:
      return "resident";
    case v1::DRAINING:
      return "draining";
    case v1::FAILED:
      return "failed";
    default:
      return "cold";
  }
}

const char* PhaseName(v1::SwitchPhase phase) {
  switch (phase) {
    case v1::SWITCH_DRAINING:
      return "draining";
    case v1::RELEASING:
      return "releasing";
    case v1::SWITCH_LOADING:
      return "loading";
    case v1::READY:
      return "ready";
    case v1::SWITCH_FAILED:
      return "failed";
    default:
      return "queued";
  }
}

Json ModelsJson(const Models& models) {
  Json array = Json::array();
  for (const v1::ModelStatus& model : models) {
    array.push_back(
        {{"name", model.name()},
         {"family", model.family()},
         {"state", StateName(model.state())},
         {"default", model.is_default()},
         {"pinned", model.pinned()},
         {"fixed_bytes", model.fixed_bytes()},
         {"weight_bytes", model.weight_bytes()},
         {"resident_bytes", model.resident_bytes()},
         {"kv_bytes", model.kv_bytes()},
         {"error", model.error()},
         {"device", model.device()},
         {"master_bytes", model.master_bytes()},
         {"running", model.running()},
         {"queued", model.queued()},
         {"paused", model.paused()},
         {"worker_pid", model.worker_pid()},
         {"requests", model.requests()},
         {"tokens", model.tokens()},
         {"restarts", model.restarts()},
         {"idle_s", model.idle_s()},
         {"last_failure", model.last_failure()},
         {"last_failure_age_s", model.last_failure_age_s()},
         {"prompt_tokens", model.prompt_tokens()},
         {"joules", OrNull(model.has_joules(), model.joules())},
         {"joules_per_token", OrNull(model.has_joules_per_token(), model.joules_per_token())},
         {"kv_blocks_used", model.kv_blocks_used()},
         {"kv_blocks_total", model.kv_blocks_total()},
         {"loads", model.loads()},
         {"streamed", model.streamed()},
         {"notes",
          std::vector<std::string>(model.plan().notes().begin(), model.plan().notes().end())}});
  }
  return array;
}

Json StatusJson(const v1::Status& status) {
  Json devices = Json::array();
  for (const v1::DeviceStatus& device : status.devices()) devices.push_back(DeviceJson(device));
  return {{"devices", devices},
          {"host",
           {{"budget_bytes", status.host().budget_bytes()},
            {"used_bytes", status.host().used_bytes()}}},
          {"models", ModelsJson(status.models())},
          {"uptime_s", status.uptime_s()},
          {"version", status.version()},
          {"default_model", status.default_model()},
          {"reload_error", status.reload_error()},
          {"reload_error_age_s", status.reload_error_age_s()}};
}

Json SwitchJson(const v1::SwitchEvent& event) {
  return {{"phase", PhaseName(event.phase())},    {"bytes_done", event.bytes_done()},
          {"bytes_total", event.bytes_total()},   {"gb_per_s", event.gb_per_s()},
          {"seconds_left", event.seconds_left()}, {"queue_position", event.queue_position()}};
}

Json ReloadJson(const v1::ReloadConfigReply& reply) {
  Json devices = Json::array();
  for (const auto& device : reply.devices()) {
    devices.push_back({{"name", device.name()},
                       {"capacity_bytes", device.capacity_bytes()},
                       {"capacity_bytes_before", device.capacity_bytes_before()}});
  }
  Json problems = Json::array();
  for (const auto& problem : reply.problems()) {
    problems.push_back({{"model", problem.model()}, {"reason", problem.reason()}});
  }
  return {{"added", NamesJson(reply.added())},
          {"changed", NamesJson(reply.changed())},
          {"removed", NamesJson(reply.removed())},
          {"devices", devices},
          {"default_model", reply.default_model()},
          {"default_model_before", reply.default_model_before()},
          {"waits_for_restart", NamesJson(reply.waits_for_restart())},
          {"not_planned", NamesJson(reply.not_planned())},
          {"tried_again", NamesJson(reply.tried_again())},
          {"problems", problems}};
}

std::string ReloadText(const v1::ReloadConfigReply& reply) {
  std::string out;
  const auto tell = [&](const char* what, const auto& names) {
    if (names.empty()) return;
    absl::StrAppend(&out, what, ": ", Printable(absl::StrJoin(names, ", ")), "\n");
  };
  tell("added", reply.added());
  tell("changed", reply.changed());
  tell("removed", reply.removed());
  for (const auto& device : reply.devices()) {
    absl::StrAppend(&out, "device ", Printable(device.name()), ": ",
                    HumanBytes(device.capacity_bytes()), ", before ",
                    HumanBytes(device.capacity_bytes_before()), "\n");
  }
  if (!reply.default_model_before().empty()) {
    absl::StrAppend(&out, "default model: ", Printable(reply.default_model()), ", before ",
                    Printable(reply.default_model_before()), "\n");
  }
  tell("had failed, tried again", reply.tried_again());
  if (out.empty()) out = "nothing has changed\n";
  for (const auto& problem : reply.problems()) {
    absl::StrAppend(&out, "cannot be served: ", Printable(problem.model()), ": ",
                    Printable(problem.reason()), "\n");
  }
  tell("waits for a restart", reply.waits_for_restart());
  tell("not planned, tried again within 5 minutes", reply.not_planned());
  return out;
}

std::string ModelsTable(const Models& models) {
  const bool energy = std::any_of(models.begin(), models.end(),
                                  [](const v1::ModelStatus& model) { return model.has_joules(); });
  std::vector<std::vector<std::string>> rows = {
      {"MODEL", "FAMILY", "STATE", ">WEIGHTS", ">ON DEVICE", ">KV", ">FIXED"}};
  if (energy) rows[0].insert(rows[0].end(), {">TOKENS", ">ENERGY", ">J/TOKEN"});
  rows[0].push_back("NOTES");
  for (const v1::ModelStatus& model : models) {
    std::vector<std::string>& row = rows.emplace_back();
    row = {model.name(),
           model.family(),
           StateName(model.state()),
           HumanBytes(model.weight_bytes()),
           HumanBytes(model.resident_bytes()),
           HumanBytes(model.kv_bytes()),
           HumanBytes(model.fixed_bytes())};
    if (energy) {
      row.push_back(absl::StrCat(model.tokens()));
      row.push_back(model.has_joules() ? HumanJoules(model.joules()) : "-");
      row.push_back(model.has_joules_per_token() ? absl::StrFormat("%.3g", model.joules_per_token())
                                                 : "-");
    }
    row.push_back(Notes(model));
  }
  return Table(rows);
}

std::string StatusText(const v1::Status& status) {
  std::string out =
      absl::StrFormat("switchyard %s, up %.0f s\n", Printable(status.version()), status.uptime_s());
  absl::StrAppend(&out, DefaultText(status));
  if (!status.reload_error().empty()) {
    absl::StrAppendFormat(&out, "the last reload failed %.0f s ago and changed nothing: %s\n",
                          status.reload_error_age_s(), Printable(status.reload_error(), kLines));
  }
  for (const v1::DeviceStatus& device : status.devices()) {
    absl::StrAppend(&out, "\n", DeviceText(device));
  }
  absl::StrAppend(&out, "\nhost memory: ", HumanBytes(status.host().used_bytes()), " of ",
                  HumanBytes(status.host().budget_bytes()), "\n\n", ModelsTable(status.models()));
  return out;
}

std::string SwitchText(const v1::SwitchEvent& event) {
  std::string text = absl::StrFormat("%-9s", PhaseName(event.phase()));
  if (event.queue_position() > 0) {
    absl::StrAppend(&text, "  number ", event.queue_position(), " in the queue");
  }
  if (event.bytes_total() > 0) {
    absl::StrAppend(&text, "  ", HumanBytes(event.bytes_done()), " of ",
                    HumanBytes(event.bytes_total()));
  }
  if (event.gb_per_s() > 0) absl::StrAppendFormat(&text, "  %.2f GB/s", event.gb_per_s());
  if (event.seconds_left() >= 1)
    absl::StrAppendFormat(&text, "  %.0f s left", event.seconds_left());
  return text;
}

}  // namespace switchyard::cli
