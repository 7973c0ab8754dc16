#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "worker/tokenizer/pre_tokenizer.h"
#include "worker/tokenizer/spec.h"

namespace switchyard::worker::tokenizer {

// A stretch of a piece: what a pattern matched, or what lies between two matches.
struct Span {
  uint32_t begin, end;
  bool matched;
};

// Appends the spans that cover `text` from left to right.
using FindSpans = absl::FunctionRef<absl::Status(std::string_view text, std::vector<Span>* spans)>;

// Cuts every piece of `*list` at the spans that `find` gives, as `behavior` says.
absl::Status SplitPieces(FindSpans find, SplitBehavior behavior, PieceList* list);

// Spans from matches: fills the gaps. Call Match in order, then Finish.
class SpanBuilder {
 public:
  SpanBuilder(uint32_t size, std::vector<Span>* spans) : size_(size), spans_(spans) {}
  void Match(size_t begin, size_t end) {
    const auto b = static_cast<uint32_t>(begin), e = static_cast<uint32_t>(end);
    if (done_ < b) spans_->push_back({done_, b, false});
    spans_->push_back({b, e, true});
    done_ = e;
  }
  void Finish() {
    if (done_ < size_) spans_->push_back({done_, size_, false});
  }

 private:
  uint32_t size_, done_ = 0;
  std::vector<Span>* spans_;
};

}  // namespace switchyard::worker::tokenizer
