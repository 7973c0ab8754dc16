#include "supervisor/status_line.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/printable.h"

namespace switchyard::supervisor {
namespace {

namespace v1 = ::switchyard::v1;

// What a model counts as. In the order in which they are told.
enum Kind { kResident, kMoving, kWarm, kCold, kUnwell, kFailed, kKinds };
constexpr const char* kNames[kKinds] = {"resident", "moving", "warm", "cold", "unwell", "failed"};
constexpr bool kNamed[kKinds] = {true, true, false, false, true, true};

Kind KindOf(const v1::ModelStatus& model) {
  if (model.state() == v1::FAILED) return kFailed;
  if (!model.error().empty()) return kUnwell;
  switch (model.state()) {
    case v1::RESIDENT:
      return kResident;
    case v1::LOADING:
    case v1::DRAINING:
      return kMoving;
    case v1::WARM:
      return kWarm;
    default:
      return kCold;
  }
}

// Its first line: there is only one here.
std::string FailedReload(const std::string& error) {
  if (error.empty()) return "";
  return absl::StrCat("; the last reload failed: ", Printable(error.substr(0, error.find('\n'))));
}

}  // namespace

std::string StatusLine(const v1::Status& status) {
  std::vector<std::string> of[kKinds];
  for (const v1::ModelStatus& model : status.models()) of[KindOf(model)].push_back(model.name());
  std::vector<std::string> parts;
  for (int kind = 0; kind < kKinds; ++kind) {
    if (of[kind].empty()) continue;
    parts.push_back(absl::StrCat(of[kind].size(), " ", kNames[kind]));
    if (kNamed[kind]) absl::StrAppend(&parts.back(), " (", absl::StrJoin(of[kind], ", "), ")");
  }
  const int models = status.models_size();
  return absl::StrCat(models, models == 1 ? " model" : " models", parts.empty() ? "" : ": ",
                      absl::StrJoin(parts, ", "), FailedReload(status.reload_error()));
}

}  // namespace switchyard::supervisor
