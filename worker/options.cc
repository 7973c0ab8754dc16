#include "worker/options.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/usable_cores.h"
#include "worker/model/image_cache.h"

namespace switchyard::worker {
namespace {

// Keeps the first error; a text has one line, so the column is enough.
class FirstError final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty()) text_ = absl::StrCat("column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

absl::StatusOr<v1::Model> ParseModelText(const std::string& text) {
  v1::Model model;
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, &model)) {
    return absl::InvalidArgumentError(absl::StrCat("--model-text: ", error.text()));
  }
  if (model.name().empty() || model.checkpoint().empty()) {
    return absl::InvalidArgumentError("--model-text: name and checkpoint are needed");
  }
  return model;
}

absl::StatusOr<int32_t> ParseCount(const char* flag, const std::string& text) {
  int32_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < 0) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": \"", text, "\" is not a count"));
  }
  return value;
}

absl::StatusOr<uint64_t> ParseSize(const char* flag, const std::string& text) {
  uint64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": \"", text, "\" is no size in bytes"));
  }
  return value;
}

}  // namespace

const char* Usage() {
  return "usage: switchyard-worker --plan  --model-text TEXTPROTO --device NAME [--threads N] "
         "[--json]\n"
         "                         [--needs-weights] [--supervisor-pid PID]\n"
         "       switchyard-worker --serve --model-text TEXTPROTO --device NAME [--threads N]\n"
         "                         [--cache-dir DIR] [--cache-bytes N] [--supervisor-pid PID]\n"
         "Started by switchyard-supervisor. --plan reads headers and prints what the model needs;\n"
         "weights may be missing, unless --needs-weights is given; with --supervisor-pid it\n"
         "expects a death pipe as descriptor 3. It exits with 1 if the model cannot be served,\n"
         "with 3 if that cannot be told now. --serve expects its connection as descriptors 3, 4\n"
         "and 5.\n";
}

int DefaultThreads(int cores) { return cores < 4 ? cores : cores - 1; }

absl::StatusOr<Options> ParseOptions(int argc, const char* const* argv) {
  Options options;
  bool plan = false, serve = false, have_model = false;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--plan") {
      plan = true;
    } else if (flag == "--serve") {
      serve = true;
    } else if (flag == "--json") {
      options.json = true;
    } else if (flag == "--needs-weights") {
      options.needs_weights = true;
    } else if (i + 1 == argc) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": unknown flag, or no value follows"));
    } else {
      const std::string value = argv[++i];
      if (flag == "--model-text") {
        ASSIGN_OR_RETURN(options.model, ParseModelText(value));
        have_model = true;
      } else if (flag == "--device") {
        options.device = value;
      } else if (flag == "--cache-dir") {
        options.cache_dir = value;
      } else if (flag == "--cache-bytes") {
        ASSIGN_OR_RETURN(options.cache_bytes, ParseSize("--cache-bytes", value));
      } else if (flag == "--threads") {
        ASSIGN_OR_RETURN(options.threads, ParseCount("--threads", value));
      } else if (flag == "--supervisor-pid") {
        ASSIGN_OR_RETURN(options.supervisor_pid, ParseCount("--supervisor-pid", value));
      } else {
        return absl::InvalidArgumentError(absl::StrCat(flag, ": unknown flag"));
      }
    }
  }
  if (plan == serve) return absl::InvalidArgumentError("one of --plan and --serve is needed");
  if (!have_model) return absl::InvalidArgumentError("--model-text is needed");
  if (options.cache_bytes == 0) options.cache_bytes = kImageCacheBytes;
  if (options.threads == 0) options.threads = DefaultThreads(UsableCores());
  options.mode = plan ? Mode::kPlan : Mode::kServe;
  return options;
}

}  // namespace switchyard::worker
