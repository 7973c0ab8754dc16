#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// What a tokenizer.json says, as plain data: types and ranges are checked, Sequences are flattened
// into vectors (running steps in order is all that a Sequence does).
namespace switchyard::worker::tokenizer {

struct PatternSpec {
  bool is_regex = false;  // else `text` is matched literally
  std::string text;       // regular expressions are in Oniguruma's Ruby-like syntax
};

struct NormalizerSpec {
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStrip,
    kStripAccents,
    kPrepend,
    kReplace
  };
  Kind kind = Kind::kNfc;
  bool strip_left = true;   // kStrip
  bool strip_right = true;  // kStrip
  PatternSpec pattern;      // kReplace
  std::string content;      // kReplace: what is put in; kPrepend: what is put before
};

// What a split does with the text that its pattern matched.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

enum class PrependScheme { kNever, kFirst, kAlways };

struct PreTokenizerSpec {
  enum class Kind {
    kByteLevel,
    kSplit,
    kDigits,
    kMetaspace,
    kWhitespace,
    kWhitespaceSplit,
    kPunctuation
  };
  Kind kind = Kind::kByteLevel;
  bool add_prefix_space = true;                           // kByteLevel
  bool use_regex = true;                                  // kByteLevel: split as GPT-2 does
  PatternSpec pattern;                                    // kSplit
  SplitBehavior behavior = SplitBehavior::kIsolated;      // kSplit, kPunctuation
  bool invert = false;                                    // kSplit: the pattern says what is kept
  bool individual_digits = false;                         // kDigits
  std::string replacement;                                // kMetaspace: one character for a space
  PrependScheme prepend_scheme = PrependScheme::kAlways;  // kMetaspace
  bool split = true;                                      // kMetaspace
};

struct BpeSpec {
  std::vector<std::pair<std::string, int32_t>> vocab;       // (token, id); ids in [0, kMaxTokenId]
  std::vector<std::pair<std::string, std::string>> merges;  // highest priority first
  std::string unk_token;                                    // empty: none
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

struct AddedTokenSpec {
  int32_t id = 0;
  std::string content;
  bool special = false;      // left out by a decode that skips special tokens
  bool lstrip = false;       // swallows white space on its left
  bool rstrip = false;       // swallows white space on its right
  bool single_word = false;  // does not match inside a word
  bool normalized = false;   // is looked for in the normalized text
};

// One template: ids around (or between) the text's own ids.
struct TemplateItem {
  bool is_text = false;  // the text's ids, else `ids`
  std::vector<int32_t> ids;
};
using TemplateSpec = std::vector<TemplateItem>;

struct DecoderSpec {
  enum class Kind { kByteLevel, kByteFallback, kFuse, kReplace, kStrip, kMetaspace };
  Kind kind = Kind::kFuse;
  PatternSpec pattern;      // kReplace
  std::string content;      // kReplace: what is put in; kStrip: the one character to strip
  uint32_t start = 0;       // kStrip: at most so many at the start
  uint32_t stop = 0;        // kStrip: at most so many at the end
  std::string replacement;  // kMetaspace: the character that stands for a space
  PrependScheme prepend_scheme = PrependScheme::kAlways;  // kMetaspace
};

struct TokenizerSpec {
  std::vector<AddedTokenSpec> added_tokens;
  std::vector<NormalizerSpec> normalizers;
  std::vector<PreTokenizerSpec> pre_tokenizers;
  std::vector<TemplateSpec> templates;  // applied in order, each around what the one before made
  bool has_decoder = false;             // without one, tokens are joined by spaces
  std::vector<DecoderSpec> decoders;
  BpeSpec model;
};

// Bounds a table indexed by id; the largest published vocabulary has 262,144 entries.
constexpr int32_t kMaxTokenId = (1 << 24) - 1;

}  // namespace switchyard::worker::tokenizer
