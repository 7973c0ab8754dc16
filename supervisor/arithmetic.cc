#include "supervisor/arithmetic.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/human.h"

namespace switchyard::supervisor {
namespace {

// The `quantize:` that brings the image under `bytes`, as far as can be told from the plan, or "".
// FP8 takes a byte a weight, INT4 half of one, and scales a thirty-second; weights that take no
// more than about a byte are quantized already, and cannot be once more.
std::string HelpfulQuantization(const v1::Plan& plan, uint64_t bytes) {
  const uint64_t weights = plan.parameters();
  if (weights == 0 || plan.image_bytes() / 5 * 4 <= weights) return "";
  if (weights + weights / 32 <= bytes) return "`quantize: FP8`";
  if (weights / 2 + weights / 32 <= bytes) return "`quantize: INT4`";
  return "";
}

}  // namespace

std::string SmallestLeaseText(const Needs& needs, uint64_t beside) {
  return absl::StrCat(HumanBytes(needs.Smallest().total(), beside), " (fixed ",
                      HumanBytes(needs.fixed), " + weights ", HumanBytes(needs.image),
                      " + smallest KV pool ", HumanBytes(needs.kv_smallest), ")");
}

uint64_t Usable(const Device& device) {
  return device.capacity_bytes - std::min(device.reserve_bytes, device.capacity_bytes);
}

std::string UsableText(const Device& device, uint64_t beside) {
  return absl::StrCat(device.name, " has ", HumanBytes(device.capacity_bytes, beside),
                      ", of which ", HumanBytes(device.reserve_bytes),
                      " are kept in reserve: ", HumanBytes(Usable(device), beside),
                      " can be leased");
}

// 1. The context is too long: of the shorter ones the longest that fits.
// 2. Weights have to shrink, and still leave room for the fixed bytes and the smallest pool.
std::string DeviceAdvice(const v1::Plan& plan, uint64_t usable) {
  std::string advice = "Use a larger device";
  for (const v1::Plan::Context& shorter : plan.shorter()) {  // 1
    if (plan.image_bytes() > usable || shorter.bytes() > usable - plan.image_bytes()) continue;
    absl::StrAppend(&advice, " or a context_length of ", shorter.context_length());
    break;
  }
  if (plan.fixed_bytes() >= usable) return advice;
  const uint64_t left = usable - plan.fixed_bytes();
  if (plan.kv_smallest_bytes() < left) {  // 2
    const std::string quantize = HelpfulQuantization(plan, left - plan.kv_smallest_bytes());
    if (!quantize.empty()) absl::StrAppend(&advice, " or ", quantize);
  }
  return advice;
}

}  // namespace switchyard::supervisor
