#include "worker/tokenizer/byte_level.h"

#include <array>

#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

constexpr int kAlphabetEnd = 0x144;  // one past the alphabet's last character

struct Alphabet {
  std::array<std::string, 256> of_byte;
  std::array<int, kAlphabetEnd> to_byte;  // -1: not in the alphabet
};

bool StandsForItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

const Alphabet& GetAlphabet() {
  static const Alphabet* const alphabet = [] {
    auto* a = new Alphabet;
    a->to_byte.fill(-1);
    char32_t next = 0x100;  // the other bytes, in order
    for (int byte = 0; byte < 256; ++byte) {
      const char32_t c = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
      AppendUtf8(c, &a->of_byte[static_cast<size_t>(byte)]);
      a->to_byte[c] = byte;
    }
    return a;
  }();
  return *alphabet;
}

}  // namespace

void AppendByteLevel(std::string_view bytes, std::string* out) {
  const Alphabet& alphabet = GetAlphabet();
  for (char c : bytes) out->append(alphabet.of_byte[static_cast<uint8_t>(c)]);
}

void AppendByteLevelDecoded(std::string_view token, std::string* out) {
  const Alphabet& alphabet = GetAlphabet();
  const size_t before = out->size();
  for (size_t pos = 0; pos < token.size();) {
    const char32_t c = DecodeUtf8(token, &pos);
    const int byte = c < kAlphabetEnd ? alphabet.to_byte[c] : -1;
    if (byte < 0) {
      out->resize(before);
      out->append(token);
      return;
    }
    out->push_back(static_cast<char>(byte));
  }
}

}  // namespace switchyard::worker::tokenizer
