#include "common/human.h"

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard {
namespace {

// With so many digits more than three.
std::string WithDigits(uint64_t bytes, int more) {
  static const char* const kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return absl::StrCat(bytes, " B");
  return absl::StrFormat("%.*f %s", more + (value < 10 ? 2 : 1), value, kNames[unit]);
}

struct Unit {
  const char* name;
  double factor;
};

// Splits "1.5 GiB" into 1.5 and "GiB"; false if there is no number.
bool SplitNumber(const std::string& text, double* number, std::string* unit) {
  const char* begin = text.c_str();
  char* end = nullptr;
  *number = std::strtod(begin, &end);
  if (end == begin || !std::isfinite(*number) || *number < 0) return false;
  if (std::isalpha(static_cast<unsigned char>(*begin))) return false;  // "inf", "nan"
  while (*end == ' ') ++end;
  *unit = end;
  return true;
}

template <size_t N>
const Unit* FindUnit(const Unit (&units)[N], const std::string& name) {
  for (const Unit& u : units) {
    if (name == u.name) return &u;
  }
  return nullptr;
}

constexpr double kKi = 1024.0;
constexpr Unit kByteUnits[] = {
    {"", 1},
    {"B", 1},
    {"K", kKi},
    {"KiB", kKi},
    {"M", kKi* kKi},
    {"MiB", kKi* kKi},
    {"G", kKi* kKi* kKi},
    {"GiB", kKi* kKi* kKi},
    {"T", kKi* kKi* kKi* kKi},
    {"TiB", kKi* kKi* kKi* kKi},
    {"KB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
};
constexpr Unit kTimeUnits[] = {
    {"", 1e9}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9},
};

}  // namespace

std::string HumanBytes(uint64_t bytes) { return WithDigits(bytes, 0); }

std::string HumanBytes(uint64_t bytes, uint64_t beside) {
  constexpr int kMostDigits = 3;
  for (int more = 0; more <= kMostDigits; ++more) {
    std::string text = WithDigits(bytes, more);
    if (bytes == beside || text != WithDigits(beside, more)) return text;
  }
  return absl::StrCat(bytes, " bytes");
}

absl::StatusOr<uint64_t> ParseBytes(const std::string& text) {
  double number;
  std::string name;
  const Unit* unit = SplitNumber(text, &number, &name) ? FindUnit(kByteUnits, name) : nullptr;
  if (unit == nullptr || number * unit->factor >= 9.2e18) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", text, "\" is not a size: a number, then B, KiB, MiB, GiB, TiB, KB, MB, GB or TB"));
  }
  return static_cast<uint64_t>(number * unit->factor);
}

absl::StatusOr<int64_t> ParseDuration(const std::string& text) {
  double number;
  std::string name;
  const Unit* unit = SplitNumber(text, &number, &name) ? FindUnit(kTimeUnits, name) : nullptr;
  if (unit == nullptr || number * unit->factor >= 9.2e18) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" is not a duration: a number, then ms, s, m or h"));
  }
  return static_cast<int64_t>(number * unit->factor);
}

std::string Sentence(std::string text) {
  text.erase(text.find_last_not_of(" \t\n\r,;:") + 1);
  if (!text.empty() && std::strchr(".!?", text.back()) == nullptr) text += '.';
  return text;
}

}  // namespace switchyard
