#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace switchyard {

// 1536 -> "1.5 KiB", for people.
std::string HumanBytes(uint64_t bytes);
// The same beside another size, from which it can be told: with more digits, or in bytes, if both
// would look alike.
std::string HumanBytes(uint64_t bytes, uint64_t beside);

// "12", "512KiB", "1.5 GiB", "80G" (= GiB), "2GB" (= 10^9): bytes. INVALID_ARGUMENT says what is
// understood.
absl::StatusOr<uint64_t> ParseBytes(const std::string& text);

// "90s", "15m", "2h", "500ms" or plain seconds, as nanoseconds.
absl::StatusOr<int64_t> ParseDuration(const std::string& text);

// `text` as a sentence that another may follow: whatever it ended in, it ends in . ! or ? then.
std::string Sentence(std::string text);

}  // namespace switchyard
