#include "tests/worker/tokenizer/support.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace switchyard::worker {

std::string GoldenDir() { return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/tokenizers"; }

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenDir())) {
    if (std::filesystem::exists(entry.path() / "tokenizer.json")) {
      names.push_back(entry.path().filename());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

nlohmann::json BytesOnly() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    char token[8];
    std::snprintf(token, sizeof(token), "<0x%02X>", byte);
    vocab[token] = byte;
  }
  return {{"model",
           {{"type", "BPE"},
            {"vocab", vocab},
            {"merges", nlohmann::json::array()},
            {"byte_fallback", true}}}};
}

std::unique_ptr<Tokenizer> MakeTokenizer(const nlohmann::json& document) {
  auto tokenizer = Tokenizer::Parse(document.dump(), "tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::string Normalized(const Tokenizer& tokenizer, std::string_view text) {
  auto ids = tokenizer.Encode(text);
  EXPECT_TRUE(ids.ok()) << ids.status();
  std::string bytes;
  for (int32_t id : ids.ok() ? *ids : std::vector<int32_t>()) {
    bytes.push_back(static_cast<char>(id));
  }
  return bytes;
}

nlohmann::json MarkPieces(const nlohmann::json& pre_tokenizer) {
  const nlohmann::json mark = {{"type", "Metaspace"}, {"replacement", "|"}, {"split", false}};
  return {{"type", "Sequence"}, {"pretokenizers", {pre_tokenizer, mark}}};
}

uint32_t Crc32(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = [] {
    std::array<uint32_t, 256> t;
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t crc = 0xFFFFFFFFu;
  for (char byte : bytes) crc = table[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

uint32_t CrcOfIds(const std::vector<int32_t>& ids) {
  std::string bytes;
  for (int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<char>(static_cast<uint32_t>(id) >> shift));
    }
  }
  return Crc32(bytes);
}

}  // namespace switchyard::worker
