#include "worker/tokenizer/split.h"

#include <algorithm>
#include <utility>

#include "common/status_macros.h"

namespace switchyard::worker::tokenizer {
namespace {

// Joins spans in place where the behaviour says so; what stays is what becomes pieces.
void Merge(SplitBehavior behavior, std::vector<Span>* spans) {
  size_t kept = 0;
  bool previous_matched = false;
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      spans->erase(
          std::remove_if(spans->begin(), spans->end(), [](const Span& s) { return s.matched; }),
          spans->end());
      return;
    case SplitBehavior::kContiguous:
      for (const Span span : *spans) {
        if (kept > 0 && span.matched == previous_matched) {
          (*spans)[kept - 1].end = span.end;
        } else {
          (*spans)[kept++] = span;
        }
        previous_matched = span.matched;
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Span span : *spans) {
        if (span.matched && !previous_matched && kept > 0) {
          (*spans)[kept - 1].end = span.end;
        } else {
          (*spans)[kept++] = span;
        }
        previous_matched = span.matched;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      // The same from right to left.
      std::reverse(spans->begin(), spans->end());
      for (const Span span : *spans) {
        if (span.matched && !previous_matched && kept > 0) {
          (*spans)[kept - 1].begin = span.begin;
        } else {
          (*spans)[kept++] = span;
        }
        previous_matched = span.matched;
      }
      spans->resize(kept);
      std::reverse(spans->begin(), spans->end());
      return;
  }
  spans->resize(kept);
}

}  // namespace

absl::Status SplitPieces(FindSpans find, SplitBehavior behavior, PieceList* list) {
  std::vector<PieceList::Piece> out;
  std::vector<Span> spans;
  bool at_start = false;
  for (size_t i = 0; i < list->pieces.size(); ++i) {
    const PieceList::Piece piece = list->pieces[i];
    spans.clear();
    RETURN_IF_ERROR(find(list->Get(piece), &spans));
    Merge(behavior, &spans);
    bool first = true;
    for (const Span& span : spans) {
      if (span.begin == span.end) continue;
      if (first && i == 0) at_start = list->at_start && span.begin == 0;
      first = false;
      out.push_back({piece.begin + span.begin, piece.begin + span.end});
    }
  }
  list->pieces = std::move(out);
  list->at_start = at_start;
  return absl::OkStatus();
}

}  // namespace switchyard::worker::tokenizer
