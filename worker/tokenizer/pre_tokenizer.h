#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/tokenizer/regex.h"
#include "worker/tokenizer/spec.h"

namespace switchyard::worker::tokenizer {

// Text cut into pieces, none of them empty; what lies between two pieces was removed.
struct PieceList {
  struct Piece {
    uint32_t begin, end;  // bytes of `text`
  };
  std::string text;
  std::vector<Piece> pieces;
  bool at_start = false;  // the first piece starts where the whole input starts

  std::string_view Get(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

// Cuts normalized text into the pieces that the model sees, one after the other. Const methods may
// be called from many threads.
class PreTokenizer {
 public:
  // INVALID_ARGUMENT if a pattern does not compile.
  static absl::StatusOr<PreTokenizer> Make(std::vector<PreTokenizerSpec> steps);

  // Cuts every piece of `*list` further. INVALID_ARGUMENT if a pattern needs too many steps or the
  // text grows beyond kMaxTextBytes.
  absl::Status Apply(PieceList* list) const;

  // True if the last step writes bytes in the byte-level alphabet. Apply leaves that to the caller
  // (AppendByteLevel on each piece), who need not do it for pieces that it has seen before.
  bool pieces_are_bytes() const { return pieces_are_bytes_; }

 private:
  struct Step {
    PreTokenizerSpec spec;
    std::optional<Regex> pattern;
  };
  std::vector<Step> steps_;
  bool pieces_are_bytes_ = false;
};

}  // namespace switchyard::worker::tokenizer
