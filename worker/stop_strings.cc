#include "worker/stop_strings.h"

#include <algorithm>
#include <utility>

namespace switchyard::worker {
namespace {

std::vector<uint16_t> Borders(const std::string& text) {
  std::vector<uint16_t> borders(text.size(), 0);
  uint16_t border = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    while (border > 0 && text[i] != text[border]) border = borders[border - 1];
    if (text[i] == text[border]) ++border;
    borders[i] = border;
  }
  return borders;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& text : stops) {
    if (!text.empty()) stops_.push_back({text, Borders(text)});
  }
}

bool StopMatcher::Advance(Stop& stop, char c) {
  // A complete match never advances: the matcher has stopped.
  while (stop.matched > 0 && stop.text[stop.matched] != c) {
    stop.matched = stop.fallback[stop.matched - 1];
  }
  if (stop.text[stop.matched] == c) ++stop.matched;
  return stop.matched == stop.text.size();
}

std::string StopMatcher::Push(std::string_view text) {
  if (stopped_) return {};
  if (stops_.empty()) return std::string(text);
  for (char c : text) {
    held_.push_back(c);
    size_t complete = 0;
    for (Stop& stop : stops_) {
      if (Advance(stop, c)) complete = std::max(complete, stop.text.size());
    }
    if (complete > 0) {
      stopped_ = true;
      held_.resize(held_.size() - complete);
      return std::exchange(held_, {});
    }
  }
  size_t keep = 0;
  for (const Stop& stop : stops_) keep = std::max<size_t>(keep, stop.matched);
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace switchyard::worker
