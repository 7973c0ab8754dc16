#pragma once

// What every fuzz target includes. An input that is refused is as good as one that is taken: what
// fails a target is a crash, a sanitizer's report, SY_CHECK, and what takes 10 s or 1 GiB.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "common/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace switchyard::testing {

// The input before and after its first zero byte; without one the second is empty.
inline std::pair<std::string, std::string> SplitAtZero(const uint8_t* data, size_t size) {
  const std::string all(reinterpret_cast<const char*>(data), size);
  const size_t zero = all.find('\0');
  if (zero == std::string::npos) return {all, ""};
  return {all.substr(0, zero), all.substr(zero + 1)};
}

}  // namespace switchyard::testing
