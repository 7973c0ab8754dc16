#pragma once

// Cuts one scratch buffer into aligned arrays. Every op takes its arrays by one function that also
// runs on no buffer, to count: what ScratchBytes promises is what the op takes.

#include <cstdint>

#include "kernels/ops.h"

namespace switchyard::kernels {

class ScratchCutter {
 public:
  ScratchCutter() = default;  // counts only
  explicit ScratchCutter(Scratch scratch)
      : base_(static_cast<char*>(scratch.data)), bytes_(scratch.bytes) {}

  // An array of `count`, aligned to a cache line; null when counting or past the end.
  template <class T>
  T* Take(int64_t count) {
    const int64_t begin = used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return base_ != nullptr && used_ <= bytes_ ? reinterpret_cast<T*>(base_ + begin) : nullptr;
  }

  int64_t used() const { return used_; }
  bool ok() const { return used_ == 0 || (base_ != nullptr && used_ <= bytes_); }

 private:
  char* base_ = nullptr;
  int64_t bytes_ = 0;
  int64_t used_ = 0;
};

inline constexpr OpError kScratchTooSmall = {"scratch is smaller than ScratchBytes of this shape"};

}  // namespace switchyard::kernels
