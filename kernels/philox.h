#pragma once

// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter
// in, 128 random bits out, no state. Sampling noise is made from it on every backend, so that a
// seed means the same tokens everywhere. Usable on host and device.

#include <cstdint>

#if defined(__CUDACC__)
#define SWITCHYARD_HOST_DEVICE __host__ __device__
#else
#define SWITCHYARD_HOST_DEVICE
#endif

namespace switchyard::kernels {

struct Philox4 {
  uint32_t v[4];
};

SWITCHYARD_HOST_DEVICE inline Philox4 Philox(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter.v[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter.v[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.v[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.v[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// The 32 bits behind the noise of `token` at `position` (of the token to be drawn, not of its row).
SWITCHYARD_HOST_DEVICE inline uint32_t SamplingBits(uint64_t seed, int32_t position,
                                                    int32_t token) {
  const Philox4 counter = {{static_cast<uint32_t>(position), static_cast<uint32_t>(token), 0, 0}};
  return Philox(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)).v[0];
}

}  // namespace switchyard::kernels
