// Kernels that only read. Which pattern is fastest depends on the machine's prefetchers, so the
// limit is the best of several.

#include "bench/limits.h"
#include "kernels/cpu/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/limits_read.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::bench {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// `kStreams` equal parts are read side by side; `kAhead` bytes of software prefetch, 0 for none.
template <int kStreams, int kAhead>
void Read(const char* data, int64_t bytes) {
  const hn::ScalableTag<uint64_t> d;
  constexpr int64_t kLine = 64;
  const int64_t part = bytes / kStreams / kLine * kLine;
  const int64_t step = static_cast<int64_t>(hn::Lanes(d) * sizeof(uint64_t));
  auto sum = hn::Zero(d);
  for (int64_t i = 0; i < part; i += kLine) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const char* at = data + s * part + i;
      if (kAhead > 0) __builtin_prefetch(at + kAhead);
      for (int64_t j = 0; j < kLine; j += step) {
        sum = hn::Xor(sum, hn::LoadU(d, reinterpret_cast<const uint64_t*>(at + j)));
      }
    }
  }
  volatile uint64_t sink = hn::GetLane(sum);
  (void)sink;
}

void ReadOneStream(const char* data, int64_t bytes) { Read<1, 0>(data, bytes); }
void ReadOneStreamAhead(const char* data, int64_t bytes) { Read<1, 2048>(data, bytes); }
void ReadFourStreams(const char* data, int64_t bytes) { Read<4, 0>(data, bytes); }
void ReadFourStreamsAhead(const char* data, int64_t bytes) { Read<4, 1024>(data, bytes); }
void ReadEightStreamsAhead(const char* data, int64_t bytes) { Read<8, 1024>(data, bytes); }

}  // namespace HWY_NAMESPACE
}  // namespace switchyard::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::bench {

HWY_EXPORT(ReadOneStream);
HWY_EXPORT(ReadOneStreamAhead);
HWY_EXPORT(ReadFourStreams);
HWY_EXPORT(ReadFourStreamsAhead);
HWY_EXPORT(ReadEightStreamsAhead);

int ReadKernelCount() { return 5; }

const char* ReadKernelName(int kernel) {
  static const char* const names[] = {"one stream", "one stream, prefetched", "four streams",
                                      "four streams, prefetched", "eight streams, prefetched"};
  return names[kernel];
}

void ReadPass(int kernel, const char* data, int64_t bytes) {
  switch (kernel) {
    case 0:
      return HWY_DYNAMIC_DISPATCH(ReadOneStream)(data, bytes);
    case 1:
      return HWY_DYNAMIC_DISPATCH(ReadOneStreamAhead)(data, bytes);
    case 2:
      return HWY_DYNAMIC_DISPATCH(ReadFourStreams)(data, bytes);
    case 3:
      return HWY_DYNAMIC_DISPATCH(ReadFourStreamsAhead)(data, bytes);
    default:
      return HWY_DYNAMIC_DISPATCH(ReadEightStreamsAhead)(data, bytes);
  }
}

}  // namespace switchyard::bench
#endif  // HWY_ONCE
