#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "worker/tokenizer/added_tokens.h"
#include "worker/tokenizer/bpe.h"
#include "worker/tokenizer/decoder.h"
#include "worker/tokenizer/normalizer.h"
#include "worker/tokenizer/pre_tokenizer.h"
#include "worker/tokenizer/tokenizer.h"
#include "worker/tokenizer/word_cache.h"

namespace switchyard::worker {

// What one call of Encode works with; calls take turns with a few of them.
struct EncodeWorkspace {
  tokenizer::WordCache cache;
  tokenizer::BpeScratch bpe;
  std::string word;  // a word in the byte-level alphabet
};

struct Tokenizer::Parts {
  tokenizer::Normalizer normalizer;
  tokenizer::AddedTokens added;
  tokenizer::PreTokenizer pre_tokenizer;
  tokenizer::Bpe model;
  std::vector<tokenizer::TemplateSpec> templates;
  tokenizer::Decoder decoder;

  // Null if no token has this id.
  const std::string* TokenOf(int32_t id) const;

  absl::Status EncodeText(std::string_view text, bool at_start, bool parse_special,
                          EncodeWorkspace* workspace, std::vector<int32_t>* ids) const;
  absl::Status EncodePieces(const tokenizer::PieceList& list, EncodeWorkspace* workspace,
                            std::vector<int32_t>* ids) const;
  absl::Status EncodeWord(std::string_view word, EncodeWorkspace* workspace,
                          std::vector<int32_t>* ids) const;

  std::unique_ptr<EncodeWorkspace> TakeWorkspace() const;
  void GiveWorkspace(std::unique_ptr<EncodeWorkspace> workspace) const;

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<EncodeWorkspace>> idle_;  // guarded by mutex_
};

}  // namespace switchyard::worker
