#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::worker {

// Looks for stop strings in a text that arrives in parts. The match that ends first wins, and of
// two that end together the longer, so that the result does not depend on how the text was cut.
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& stops);

  // The text that is certain not to be part of a stop string. Once a stop string is complete,
  // `stopped` is true, the text before it has been returned, and whatever follows is dropped.
  std::string Push(std::string_view text);
  // The text that was held back; nothing may be pushed after it.
  std::string Finish();

  bool stopped() const { return stopped_; }

 private:
  // Knuth, Morris and Pratt's automaton of one stop string.
  struct Stop {
    std::string text;
    std::vector<uint16_t> fallback;  // [i]: longest proper border of the first i + 1 bytes
    uint16_t matched = 0;            // bytes of `text` that the input ends with
  };
  static bool Advance(Stop& stop, char c);  // true if it is complete

  std::vector<Stop> stops_;
  std::string held_;  // ends with the longest beginning of a stop string
  bool stopped_ = false;
};

}  // namespace switchyard::worker
