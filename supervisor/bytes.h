#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard::supervisor {

// The bytes of one lease, in its three parts.
struct Bytes {
  uint64_t fixed = 0;
  uint64_t weights = 0;
  uint64_t kv = 0;

  uint64_t total() const { return fixed + weights + kv; }
  // No weights and no KV.
  bool OnlyFixed() const { return fixed > 0 && total() == fixed; }
  // At least `other` in every part.
  bool Covers(const Bytes& other) const {
    return fixed >= other.fixed && weights >= other.weights && kv >= other.kv;
  }
  friend bool operator==(const Bytes&, const Bytes&) = default;
};

// The larger of both, part by part.
inline Bytes Max(const Bytes& a, const Bytes& b) {
  return {std::max(a.fixed, b.fixed), std::max(a.weights, b.weights), std::max(a.kv, b.kv)};
}
// The smaller of both, part by part.
inline Bytes Min(const Bytes& a, const Bytes& b) {
  return {std::min(a.fixed, b.fixed), std::min(a.weights, b.weights), std::min(a.kv, b.kv)};
}

// What a model needs of a device, taken from its plan.
struct Needs {
  uint64_t fixed = 0;
  uint64_t image = 0;
  uint64_t chunk = 1;        // weights come and go in these, from the end of the image
  uint64_t kv_smallest = 0;  // one sequence of context_length plus one chunk
  uint64_t kv_useful = 0;    // more than this is never used; at least kv_smallest
  uint64_t kv_granule = 1;   // the pool grows and shrinks in these

  // The smallest lease with which the model runs.
  Bytes Smallest() const { return {fixed, image, kv_smallest}; }
  // Whether `lease` makes the model resident.
  bool Whole(const Bytes& lease) const { return lease.Covers(Smallest()); }
};

}  // namespace switchyard::supervisor
