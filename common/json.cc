#include "common/json.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "common/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxDepth = 128;

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(const std::string& text, const std::string& name,
                                         uint64_t max_bytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", text.size(), " bytes of JSON, at most ", max_bytes));
  }
  std::string problem;
  std::vector<absl::flat_hash_set<std::string>> keys;
  size_t depth = 0;
  using Event = nlohmann::json::parse_event_t;
  // False: the value is not kept, so a hostile file costs no memory once it is known to be one.
  auto watch = [&](int /*unused*/, Event event, nlohmann::json& parsed) {
    if (!problem.empty()) return false;
    if (event == Event::object_start || event == Event::array_start) {
      if (++depth > kMaxDepth) {
        problem = absl::StrCat("nested deeper than ", kMaxDepth, " levels");
      }
      if (event == Event::object_start) keys.emplace_back();
    } else if (event == Event::object_end || event == Event::array_end) {
      --depth;
      if (event == Event::object_end) keys.pop_back();
    } else if (event == Event::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        problem = absl::StrCat("key \"", ValidUtf8(key, 200), "\" stands twice in one object");
      }
    }
    return problem.empty();
  };
  nlohmann::json value = nlohmann::json::parse(text, watch, /*allow_exceptions=*/false);
  if (!problem.empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", problem));
  if (value.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not valid JSON"));
  }
  return value;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t max_bytes) {
  // Not blocking: a FIFO in place of a file would wait for a writer for ever.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(path.c_str());
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return ErrnoStatus(path.c_str());
  if (!S_ISREG(st.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  if (static_cast<uint64_t>(st.st_size) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", st.st_size, " bytes, at most ", max_bytes));
  }
  std::string data(static_cast<size_t>(st.st_size), '\0');
  size_t done = 0;
  while (done < data.size()) {
    ssize_t n = ::read(fd.get(), data.data() + done, data.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(path.c_str());
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(path, ": shrank while it was read, to ", done));
    }
    done += static_cast<size_t>(n);
  }
  return data;
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, uint64_t max_bytes) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, max_bytes));
  return ParseJson(text, path, max_bytes);
}

}  // namespace switchyard
