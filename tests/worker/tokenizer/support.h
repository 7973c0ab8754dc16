#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "worker/tokenizer/tokenizer.h"

namespace switchyard::worker {

// Folder of the golden tokenizers, and the name of each.
std::string GoldenDir();
std::vector<std::string> GoldenNames();

std::string ReadText(const std::string& path);

// A tokenizer.json with one token for each byte and nothing else: every byte of what the normalizer
// and the pre-tokenizer leave becomes an id of its own, "<0x00>" is 0.
nlohmann::json BytesOnly();

// Fails the test if it does not parse.
std::unique_ptr<Tokenizer> MakeTokenizer(const nlohmann::json& document);

// What a BytesOnly tokenizer makes of `text`, as text again.
std::string Normalized(const Tokenizer& tokenizer, std::string_view text);

// Makes the pieces of a pre-tokenizer visible to Normalized: a "|" before each and for each space.
nlohmann::json MarkPieces(const nlohmann::json& pre_tokenizer);

uint32_t Crc32(std::string_view bytes);
uint32_t CrcOfIds(const std::vector<int32_t>& ids);

}  // namespace switchyard::worker
