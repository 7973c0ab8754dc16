#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::worker {

struct EncodeOptions {
  // The ids that the model's template puts around a text (a beginning-of-text token, as a rule).
  bool add_special_tokens = true;
  // Special tokens that are spelled out in the text count as such; else they are plain text.
  bool parse_special = true;
};

// Text to token ids and back, as a model's tokenizer.json says. Const methods may be called from
// many threads.
class Tokenizer {
 public:
  // From a file. NOT_FOUND, or INVALID_ARGUMENT, which names the file, the component and the value.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(const std::string& json_text,
                                                          const std::string& name_for_errors);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // INVALID_ARGUMENT if the text is not UTF-8 (the offset of the first wrong byte is named), is
  // larger than 1 GiB, or would take a pattern too many steps.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options = {}) const;

  // INVALID_ARGUMENT for an id that no token has. Bytes that are not UTF-8 become U+FFFD.
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  int32_t vocab_size() const;  // the largest id + 1; not every id below it need have a token
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // As the file spells it (in the byte-level alphabet, or with U+2581 for a space).
  std::optional<std::string> IdToToken(int32_t id) const;
  bool IsSpecial(int32_t id) const;

 private:
  friend class StreamingDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// Decodes one sequence as its ids come. What Push and Finish return, put together, is what
// Tokenizer::Decode says of all the ids. Never returns half a character: bytes wait until they are
// one (behind byte tokens, <0x0A>, until the run of byte tokens ends, since one wrong byte changes
// how all of a run is read). The tokenizer must live longer.
class StreamingDecoder {
 public:
  StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  StreamingDecoder(StreamingDecoder&&) noexcept;
  StreamingDecoder& operator=(StreamingDecoder&&) noexcept;
  ~StreamingDecoder();

  // The text that became certain. An id that no token has adds nothing: a model's output may be
  // wider than its vocabulary.
  std::string Push(int32_t id);
  // The rest; nothing may be pushed after it.
  std::string Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard::worker
