#include "supervisor/request_memory.h"

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "supervisor/retry_after.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kRetry = 5 * kSecond;

}  // namespace

bool RequestMemory::Take(uint64_t bytes, uint64_t bound) {
  uint64_t used = used_;
  do {
    if (bytes > bound || used > bound - bytes) return false;
  } while (!used_.compare_exchange_weak(used, used + bytes));
  return true;
}

absl::Status RequestMemory::Charge::Resize(uint64_t bytes) {
  if (bytes <= bytes_) {
    memory_->used_ -= bytes_ - bytes;
    bytes_ = bytes;
    return absl::OkStatus();
  }
  const uint64_t limit = memory_->limit_;
  const uint64_t bound = bytes <= kSmall ? limit : limit - limit / 4;
  if (memory_->Take(bytes - bytes_, bound)) {
    bytes_ = bytes;
    return absl::OkStatus();
  }
  const std::string what =
      absl::StrCat("this request takes ", HumanBytes(bytes, bound), " of memory; ");
  if (bytes > bound) {  // later is no better
    return absl::ResourceExhaustedError(
        absl::StrCat(what, "all that take more than ", HumanBytes(kSmall), " may have ",
                     HumanBytes(bound, bytes), " together, of the ", HumanBytes(limit),
                     " of --request-memory: send less, or start the supervisor with more"));
  }
  const uint64_t used = memory_->used_;
  const std::string whose =
      bytes <= kSmall ? "has" : absl::StrCat("leaves for those of more than ", HumanBytes(kSmall));
  return WithRetryAfter(
      absl::ResourceExhaustedError(absl::StrCat(
          what, "requests that wait have taken ", HumanBytes(used, bound), " of the ",
          HumanBytes(bound, used), " that --request-memory ", whose, ": try again later")),
      kRetry);
}

void RequestMemory::Charge::Release() {
  memory_->used_ -= bytes_;
  bytes_ = 0;
}

absl::Status CheckRequestMemory(uint64_t bytes) {
  if (bytes >= RequestMemory::kLeast) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "request_memory: ", HumanBytes(bytes, RequestMemory::kLeast), " is less than ",
      HumanBytes(RequestMemory::kLeast, bytes),
      ": a quarter of it is kept for requests of at most ", HumanBytes(RequestMemory::kSmall),
      ", and has to hold one. Give more, as --request-memory SIZE"));
}

}  // namespace switchyard::supervisor
