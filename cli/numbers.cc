#include "cli/numbers.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/printable.h"

namespace switchyard::cli {
namespace {

template <typename T>
std::string Expected() {
  if constexpr (std::is_floating_point_v<T>) return "a number";
  return absl::StrCat("a whole number from ", std::numeric_limits<T>::min(), " to ",
                      std::numeric_limits<T>::max());
}

}  // namespace

template <typename T>
absl::StatusOr<T> ParseNumber(const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool fits = error == std::errc() && end == text.data() + text.size();
  if constexpr (std::is_floating_point_v<T>) fits = fits && std::isfinite(value);
  if (fits) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", Printable(text), "\" is not ", Expected<T>()));
}

template absl::StatusOr<int32_t> ParseNumber(const std::string&);
template absl::StatusOr<uint32_t> ParseNumber(const std::string&);
template absl::StatusOr<uint64_t> ParseNumber(const std::string&);
template absl::StatusOr<float> ParseNumber(const std::string&);

absl::StatusOr<std::vector<int32_t>> ParseIds(const std::string& text) {
  std::vector<int32_t> ids;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const absl::StatusOr<int32_t> id = ParseNumber<int32_t>(part);
    if (!id.ok() || *id < 0) {
      const std::string what = part.empty() ? "an id is missing"
                                            : absl::StrCat("an id is a whole number from 0 to ",
                                                           std::numeric_limits<int32_t>::max());
      return absl::InvalidArgumentError(
          absl::StrCat("\"", Printable(text), "\" is not a list of token ids as 1,2,3: ", what));
    }
    ids.push_back(*id);
  }
  return ids;
}

}  // namespace switchyard::cli
