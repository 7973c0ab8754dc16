#include "supervisor/catalog.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/human.h"
#include "common/json.h"
#include "common/model_name.h"
#include "common/printable.h"
#include "common/status_macros.h"
#include "common/utf8.h"
#include "supervisor/arithmetic.h"
#include "supervisor/host_share.h"

namespace switchyard::supervisor {
namespace {

namespace fs = std::filesystem;
using google::protobuf::Message;
using google::protobuf::TextFormat;

constexpr uint64_t kMaxFileBytes = 1 << 20;
constexpr uint32_t kMaxContext = 1 << 24;
constexpr uint32_t kMaxSequences = 256;
constexpr uint32_t kMaxPrefillChunk = 1 << 16;
constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxQueue = 1 << 20;

// A parsed file that still knows where each field stood.
class ParsedText : private google::protobuf::io::ErrorCollector {
 public:
  explicit ParsedText(std::string path) : path_(std::move(path)) {}

  absl::Status Parse(const std::string& text, Message* message) {
    message_ = message;
    TextFormat::Parser parser;
    parser.RecordErrorsTo(this);
    parser.WriteLocationsTo(&tree_);
    if (!parser.ParseFromString(text, message)) {
      return absl::InvalidArgumentError(
          errors_.empty()
              ? absl::StrCat(path_, ": not a ", message->GetTypeName(), " in text format")
              : absl::StrJoin(errors_, "\n"));
    }
    return absl::OkStatus();
  }

  // An error that points at `field`, or at the file's start if the field is not there.
  absl::Status Error(const char* field, const std::string& what) const {
    const auto* descriptor = message_->GetDescriptor()->FindFieldByName(field);
    const auto place = tree_.GetLocation(descriptor, descriptor->is_repeated() ? 0 : -1);
    return absl::InvalidArgumentError(absl::StrCat(path_, ":", std::max(place.line, 0) + 1, ":",
                                                   std::max(place.column, 0) + 1, ": ", field, ": ",
                                                   what));
  }

 private:
  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    errors_.push_back(absl::StrCat(path_, ":", line + 1, ":", column + 1, ": ", message));
  }

  std::string path_;
  const Message* message_ = nullptr;
  TextFormat::ParseInfoTree tree_;
  std::vector<std::string> errors_;
};

absl::Status CheckMost(const ParsedText& file, const char* field, uint64_t value, uint64_t most) {
  if (value <= most) return absl::OkStatus();
  return file.Error(field, absl::StrCat(value, " is more than ", most));
}

absl::Status CheckDuration(const ParsedText& file, const char* field,
                           const google::protobuf::Duration& duration) {
  constexpr int64_t kMostSeconds = kLongestDuration / kSecond;
  const bool fraction = duration.nanos() >= 0 && duration.nanos() <= 999'999'999;
  if (duration.seconds() < 0 || !fraction) {
    return file.Error(field, absl::StrCat(duration.seconds(), " s and ", duration.nanos(),
                                          " ns: neither may be negative, nor the nanos 10^9"));
  }
  if (duration.seconds() < kMostSeconds ||
      (duration.seconds() == kMostSeconds && duration.nanos() == 0)) {
    return absl::OkStatus();
  }
  return file.Error(
      field, absl::StrCat(duration.seconds(), " s and ", duration.nanos(), " ns are more than ",
                          kMostSeconds, " s, which are 30 days"));
}

absl::Status CheckModel(const ParsedText& file, const v1::Model& model) {
  if (!ValidModelName(model.name())) {
    return file.Error("name", absl::StrCat("\"", ShownName(model.name()), "\" does not match ",
                                           kModelNamePattern));
  }
  if (model.checkpoint().empty()) return file.Error("checkpoint", "the directory is missing");
  RETURN_IF_ERROR(CheckMost(file, "context_length", model.context_length(), kMaxContext));
  RETURN_IF_ERROR(CheckMost(file, "max_sequences", model.max_sequences(), kMaxSequences));
  RETURN_IF_ERROR(CheckMost(file, "prefill_chunk", model.prefill_chunk(), kMaxPrefillChunk));
  if (model.has_idle_timeout()) {
    RETURN_IF_ERROR(CheckDuration(file, "idle_timeout", model.idle_timeout()));
  }
  if (model.has_max_wait()) {
    RETURN_IF_ERROR(CheckDuration(file, "max_wait", model.max_wait()));
    if (model.max_wait().seconds() == 0) {
      return file.Error("max_wait", "is less than 1 s, in which no model can be there");
    }
  }
  if (!v1::Quantization_IsValid(model.quantize())) {
    return file.Error("quantize", absl::StrCat(model.quantize(), " is not a quantization"));
  }
  if (!v1::KvCacheType_IsValid(model.kv_cache())) {
    return file.Error("kv_cache", absl::StrCat(model.kv_cache(), " is not a type of KV cache"));
  }
  return absl::OkStatus();
}

absl::Status CheckConfig(const ParsedText& file, const v1::SupervisorConfig& config) {
  RETURN_IF_ERROR(CheckMost(file, "queue_limit", config.queue_limit(), kMaxQueue));
  RETURN_IF_ERROR(CheckMost(file, "worker_threads", config.worker_threads(), kMaxThreads));
  if (config.has_drain_timeout()) {
    RETURN_IF_ERROR(CheckDuration(file, "drain_timeout", config.drain_timeout()));
  }
  if (config.has_shutdown_timeout()) {
    RETURN_IF_ERROR(CheckDuration(file, "shutdown_timeout", config.shutdown_timeout()));
  }
  if (config.has_probe_interval()) {
    RETURN_IF_ERROR(CheckDuration(file, "probe_interval", config.probe_interval()));
  }
  if (!config.default_model().empty() && !ValidModelName(config.default_model())) {
    return file.Error("default_model", "is not a model's name");
  }
  if (!v1::SupervisorConfig_ControlAccess_IsValid(config.control())) {
    return file.Error("control", absl::StrCat(config.control(), " is not LOOPBACK or UNIX_ONLY"));
  }
  const std::pair<const char*, const std::string&> sizes[] = {
      {"host_memory", config.host_memory()},
      {"request_memory", config.request_memory()},
      {"cache_size", config.cache_size()}};
  for (const auto& [field, text] : sizes) {
    if (text.empty()) continue;
    const auto size = ParseBytes(text);
    if (!size.ok()) return file.Error(field, std::string(size.status().message()));
  }
  return absl::OkStatus();
}

std::string ResolvedAgainst(const std::string& path, const std::string& file) {
  std::error_code ignored;
  fs::path resolved = fs::absolute(fs::path(file), ignored).parent_path() / path;
  return resolved.lexically_normal().string();
}

// As a shell reads *.textproto: what is hidden is an editor's, a lock that is a link to nowhere
// say.
bool IsModelFile(const fs::path& path) {
  return path.extension() == ".textproto" && path.filename().string().front() != '.';
}

// Where one model goes, and why not elsewhere.
ModelEntry PlanModel(const v1::Model& model, const std::vector<Device>& devices,
                     uint64_t host_budget, const Planner& planner) {
  ModelEntry entry;
  entry.model = model;
  bool known_device = model.device().empty();
  for (const Device& device : devices) {
    if (!model.device().empty() && model.device() != device.name) continue;
    known_device = true;
    absl::StatusOr<v1::Plan> plan = planner(model, device.name);
    if (!plan.ok() && !absl::IsInvalidArgument(plan.status())) {
      entry.model = model;
      entry.problem = plan.status();
      entry.not_planned = true;
      return entry;
    }
    absl::Status fits = plan.ok() ? CheckFits(*plan, device, host_budget) : plan.status();
    if (plan.ok() && (fits.ok() || entry.plan.model().empty())) entry.plan = *plan;
    if (fits.ok() || entry.problem.ok()) entry.problem = fits;  // the first device's reason is told
    if (fits.ok() || entry.model.device().empty()) entry.model.set_device(device.name);
    if (fits.ok()) return entry;
  }
  if (!known_device) {
    std::vector<std::string> names;
    for (const Device& device : devices) names.push_back(device.name);
    entry.problem = absl::FailedPreconditionError(
        absl::StrCat(model.name(), " asks for device ", model.device(), ", but there is only ",
                     absl::StrJoin(names, ", ")));
  }
  return entry;
}

}  // namespace

std::string ShownName(const std::string& name) { return Printable(ValidUtf8(name, 64)); }

std::string ModelText(const v1::Model& model) {
  TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(model, &text);
  return text;
}

absl::StatusOr<v1::Model> ParseModel(const std::string& text, const std::string& path) {
  v1::Model model;
  ParsedText file(path);
  RETURN_IF_ERROR(file.Parse(text, &model));
  RETURN_IF_ERROR(CheckModel(file, model));
  model.set_checkpoint(ResolvedAgainst(model.checkpoint(), path));
  return model;
}

absl::StatusOr<v1::SupervisorConfig> ParseConfig(const std::string& text, const std::string& path) {
  v1::SupervisorConfig config;
  ParsedText file(path);
  RETURN_IF_ERROR(file.Parse(text, &config));
  RETURN_IF_ERROR(CheckConfig(file, config));
  return config;
}

absl::StatusOr<v1::SupervisorConfig> LoadConfig(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  return ParseConfig(text, path);
}

absl::StatusOr<std::vector<v1::Model>> LoadModels(const std::string& directory) {
  std::error_code error;
  std::vector<std::string> paths;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    if (IsModelFile(it->path())) paths.push_back(it->path().string());
  }
  if (error) {
    return absl::NotFoundError(absl::StrCat("cannot read ", directory, ": ", error.message()));
  }
  if (paths.empty()) {
    return absl::NotFoundError(absl::StrCat("no *.textproto file in ", directory));
  }
  std::sort(paths.begin(), paths.end());
  std::vector<v1::Model> models;
  std::map<std::string, std::string> file_of;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
    ASSIGN_OR_RETURN(v1::Model model, ParseModel(text, path));
    auto [it, fresh] = file_of.emplace(model.name(), path);
    if (!fresh) {
      return absl::InvalidArgumentError(
          absl::StrCat("two models are named ", model.name(), ": ", it->second, " and ", path));
    }
    models.push_back(std::move(model));
  }
  return models;
}

std::vector<ModelEntry> PlanCatalog(const std::vector<v1::Model>& models,
                                    const std::vector<Device>& devices, uint64_t host_budget,
                                    const Planner& planner) {
  std::vector<ModelEntry> entries;
  for (const v1::Model& model : models) {
    entries.push_back(PlanModel(model, devices, host_budget, planner));
  }
  return entries;
}

std::vector<v1::Model> NotPlanned(const std::vector<ModelEntry>& catalog) {
  std::vector<v1::Model> models;
  for (const ModelEntry& entry : catalog) {
    if (entry.not_planned) models.push_back(entry.model);
  }
  return models;
}

void Replace(std::vector<ModelEntry> planned, std::vector<ModelEntry>& catalog) {
  std::map<std::string, ModelEntry*> by_name;
  for (ModelEntry& entry : catalog) by_name[entry.model.name()] = &entry;
  for (ModelEntry& entry : planned) {
    const auto it = by_name.find(entry.model.name());
    if (it != by_name.end()) *it->second = std::move(entry);
  }
}

Needs NeedsOf(const v1::Plan& plan) {
  Needs needs;
  needs.fixed = plan.fixed_bytes();
  needs.image = plan.image_bytes();
  needs.chunk = std::max<uint64_t>(plan.chunk_bytes(), 1);
  needs.kv_smallest = plan.kv_smallest_bytes();
  needs.kv_useful = std::max(plan.kv_useful_bytes(), plan.kv_smallest_bytes());
  needs.kv_granule = std::max<uint64_t>(plan.kv_granule_bytes(), 1);
  return needs;
}

absl::Status CheckFits(const v1::Plan& plan, const Device& device, uint64_t host_budget) {
  const Needs needs = NeedsOf(plan);
  const uint64_t usable = Usable(device);
  uint64_t smallest = 0;
  if (__builtin_add_overflow(needs.fixed, needs.image, &smallest) ||
      __builtin_add_overflow(smallest, needs.kv_smallest, &smallest) || smallest > usable) {
    return absl::FailedPreconditionError(
        absl::StrCat(plan.model(), " needs ", SmallestLeaseText(needs, usable), ", but ",
                     UsableText(device, smallest), ". ", DeviceAdvice(plan, usable)));
  }
  if (!HostShareOf(needs.image, host_budget)) {
    return absl::FailedPreconditionError(
        absl::StrCat(plan.model(), " needs ", HumanBytes(needs.image),
                     " of host memory for its master, or a budget of ",
                     HumanBytes(LeastHostBudget(), host_budget),
                     " to be read from the disk each time, but the host budget is ",
                     HumanBytes(host_budget, LeastHostBudget()), ". Raise host_memory"));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::supervisor
