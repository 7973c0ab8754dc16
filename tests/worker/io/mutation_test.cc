// Thousands of damaged headers: each is refused or describes tensors that lie within the file.

#include <gtest/gtest.h>

#include <random>

#include "tests/worker/io/checkpoint_writer.h"
#include "worker/io/safetensors.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kDataBytes = 48;
const char kHeader[] =
    R"({"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},)"
    R"("b.weight":{"dtype":"BF16","shape":[8],"data_offsets":[32,48]}})";

std::string Mutate(std::string text, std::mt19937_64& random) {
  static const std::string kAlphabet = R"({}[]",:0123456789-.eE\ntrue false null F32BF16)";
  const int changes = 1 + static_cast<int>(random() % 4);
  for (int i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = random() % text.size();
    const char other = kAlphabet[random() % kAlphabet.size()];
    switch (random() % 5) {
      case 0:
        text[at] = other;
        break;
      case 1:
        text.insert(at, 1, other);
        break;
      case 2:
        text.erase(at, 1 + random() % 8);
        break;
      case 3:
        text.insert(at, text.substr(random() % text.size(), random() % 40));
        break;
      default:
        text[at] = static_cast<char>(random());
    }
  }
  return text;
}

void CheckParsed(const std::vector<TensorInfo>& tensors) {
  uint64_t at = 8;
  for (const TensorInfo& tensor : tensors) {
    EXPECT_EQ(tensor.offset, at);
    at += tensor.bytes;
    uint64_t elements = 1;
    for (const int64_t dim : tensor.shape) elements *= static_cast<uint64_t>(dim);
    EXPECT_EQ(elements * TensorTypeBits(tensor.type) / 8, tensor.bytes);
  }
  EXPECT_EQ(at, 8 + kDataBytes);
}

TEST(Mutation, HeadersNeverGetThroughWithALie) {
  std::mt19937_64 random(20240607);
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string header = Mutate(kHeader, random);
    const auto tensors = ParseSafetensorsHeader(header, "mutated", 8, kDataBytes);
    if (!tensors.ok()) {
      EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument) << header;
      continue;
    }
    ++accepted;
    CheckParsed(*tensors);
  }
  EXPECT_GT(accepted, 100);  // names and spaces may change
  EXPECT_LT(accepted, 10000);
}

TEST(Mutation, WholeFiles) {
  const TempDir dir;
  std::mt19937_64 random(7);
  const std::string header = kHeader;
  std::string whole(8, '\0');
  whole[0] = static_cast<char>(header.size());
  whole += header + std::string(kDataBytes, 'x');
  for (int i = 0; i < 500; ++i) {
    std::string text = Mutate(whole, random);
    if (random() % 3 == 0) text.resize(random() % text.size());
    WriteText(dir / "m", text);
    const auto file = SafetensorsFile::Open(dir / "m");
    if (!file.ok()) continue;
    for (const TensorInfo& tensor : file->tensors()) {
      std::string data(tensor.bytes, '\0');
      EXPECT_TRUE(file->Read(tensor.offset, std::as_writable_bytes(std::span(data))).ok());
    }
  }
}

}  // namespace
}  // namespace switchyard::worker
