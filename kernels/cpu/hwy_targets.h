#pragma once

// Include before any Highway header. Every target compiles a file once more, so only those that
// differ by much are kept: AVX-512 (AVX3), AVX2, NEON, and the compiler's baseline.
#define HWY_DISABLED_TARGETS \
  (HWY_AVX3_DL | HWY_SSE4 | HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
