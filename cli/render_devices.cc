#include "cli/render_devices.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/table.h"
#include "common/human.h"
#include "common/printable.h"

namespace switchyard::cli {
namespace {

namespace v1 = ::switchyard::v1;

Json ProcessesJson(const v1::DeviceStatus& device) {
  if (!device.has_processes()) return Json();
  Json processes = Json::array();
  for (const auto& process : device.processes().processes()) {
    processes.push_back({{"pid", process.pid()},
                         {"bytes", OrNull(process.has_bytes(), process.bytes())},
                         {"model", process.model()}});
  }
  return processes;
}

// "62% busy, 412 W, 54 C, 12.3 kJ since start", as much of it as is known.
std::string Activity(const v1::DeviceStatus& device) {
  std::vector<std::string> parts;
  if (device.has_utilization_percent()) {
    parts.push_back(absl::StrFormat("%.0f%% busy", device.utilization_percent()));
  }
  if (device.has_watts()) parts.push_back(absl::StrFormat("%.0f W", device.watts()));
  if (device.has_celsius()) parts.push_back(absl::StrFormat("%.0f C", device.celsius()));
  if (device.has_joules()) parts.push_back(HumanJoules(device.joules()) + " since start");
  return absl::StrJoin(parts, ", ");
}

std::string LeaseTable(const v1::DeviceStatus& device) {
  std::vector<std::vector<std::string>> rows = {{"  LEASE", ">FIXED", ">WEIGHTS", ">KV", ">SUM"}};
  for (const auto& lease : device.leases()) {
    const uint64_t sum = lease.fixed_bytes() + lease.weight_bytes() + lease.kv_bytes();
    rows.push_back({"  " + lease.model(), HumanBytes(lease.fixed_bytes()),
                    HumanBytes(lease.weight_bytes()), HumanBytes(lease.kv_bytes()),
                    HumanBytes(sum)});
  }
  return Table(rows);
}

std::string ProcessTable(const v1::DeviceStatus& device) {
  std::vector<std::vector<std::string>> rows = {{"  PROCESS", ">MEMORY", "MODEL"}};
  for (const auto& process : device.processes().processes()) {
    rows.push_back({absl::StrCat("  ", process.pid()),
                    process.has_bytes() ? HumanBytes(process.bytes()) : "-",
                    process.model().empty() ? "(not ours)" : process.model()});
  }
  return Table(rows);
}

}  // namespace

Json DeviceJson(const v1::DeviceStatus& device) {
  Json leases = Json::array();
  for (const auto& lease : device.leases()) {
    leases.push_back({{"model", lease.model()},
                      {"fixed_bytes", lease.fixed_bytes()},
                      {"weight_bytes", lease.weight_bytes()},
                      {"kv_bytes", lease.kv_bytes()}});
  }
  return {{"name", device.name()},
          {"capacity_bytes", device.capacity_bytes()},
          {"reserve_bytes", device.reserve_bytes()},
          {"leased_bytes", device.leased_bytes()},
          {"foreign_bytes", device.foreign_bytes()},
          {"free_bytes", device.free_bytes()},
          {"leases", leases},
          {"utilization_percent",
           OrNull(device.has_utilization_percent(), device.utilization_percent())},
          {"watts", OrNull(device.has_watts(), device.watts())},
          {"celsius", OrNull(device.has_celsius(), device.celsius())},
          {"joules", OrNull(device.has_joules(), device.joules())},
          {"processes", ProcessesJson(device)}};
}

std::string DeviceText(const v1::DeviceStatus& device) {
  std::string out = absl::StrCat(
      "device ", Printable(device.name()), ": ", HumanBytes(device.capacity_bytes()), ", leased ",
      HumanBytes(device.leased_bytes()), ", reserve ", HumanBytes(device.reserve_bytes()),
      ", others ", HumanBytes(device.foreign_bytes()), ", free ", HumanBytes(device.free_bytes()),
      "\n");
  if (const std::string activity = Activity(device); !activity.empty()) {
    absl::StrAppend(&out, "  ", activity, "\n");
  }
  if (!device.leases().empty()) out += LeaseTable(device);
  if (!device.processes().processes().empty()) out += ProcessTable(device);
  return out;
}

std::string HumanJoules(double joules) {
  if (joules >= 1e6) return absl::StrFormat("%.1f MJ", joules / 1e6);
  if (joules >= 1e3) return absl::StrFormat("%.1f kJ", joules / 1e3);
  return absl::StrFormat("%.0f J", joules);
}

}  // namespace switchyard::cli
