#include <bit>
#include <cstring>
#include <vector>

#include "common/checked.h"
#include "worker/model/image.h"
#include "worker/model/ordered_jobs.h"

namespace switchyard::worker {
namespace {

constexpr size_t kFewBlocks = 32;  // not worth the threads
constexpr int kLanes = 8;          // independent, so that multiplications overlap
constexpr uint64_t kOdd1 = 0x9E3779B97F4A7C15;
constexpr uint64_t kOdd2 = 0xD6E8FEB86659FD93;

uint64_t Mix(uint64_t state, uint64_t word) {
  return std::rotl(state ^ (word * kOdd1), 29) * kOdd2;
}

uint64_t Digest(std::span<const std::byte> bytes, uint64_t seed) {
  uint64_t lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = seed + kOdd1 * static_cast<uint64_t>(i + 1);
  size_t at = 0;
  uint64_t words[kLanes];
  for (; at + sizeof(words) <= bytes.size(); at += sizeof(words)) {
    std::memcpy(words, bytes.data() + at, sizeof(words));
    for (int i = 0; i < kLanes; ++i) lane[i] = Mix(lane[i], words[i]);
  }
  std::memset(words, 0, sizeof(words));
  if (at < bytes.size()) std::memcpy(words, bytes.data() + at, bytes.size() - at);
  uint64_t digest = bytes.size();
  for (int i = 0; i < kLanes; ++i) digest = Mix(digest, Mix(lane[i], words[i]));
  return digest ^ (digest >> 32);
}

}  // namespace

// The index tells blocks of the same bytes apart.
uint64_t BlockDigest(std::span<const std::byte> block, uint64_t index) {
  return Digest(block, index);
}

uint64_t ImageChecksum(std::span<const uint64_t> digests, uint64_t image_bytes) {
  return Digest(std::as_bytes(digests), image_bytes);
}

std::vector<uint64_t> BlockDigests(std::span<const std::byte> image) {
  const size_t blocks = CeilDiv(image.size(), kChecksumBlock);
  std::vector<uint64_t> digests(blocks);
  const auto digest = [&](size_t i) {
    const size_t begin = i * kChecksumBlock;
    const size_t size = std::min<size_t>(kChecksumBlock, image.size() - begin);
    digests[i] = BlockDigest(image.subspan(begin, size), i);
    return absl::OkStatus();
  };
  if (blocks < kFewBlocks) {
    for (size_t i = 0; i < blocks; ++i) (void)digest(i);
  } else {
    (void)RunInOrder(blocks, digest, nullptr);
  }
  return digests;
}

uint64_t ImageChecksum(std::span<const std::byte> image) {
  return ImageChecksum(BlockDigests(image), image.size());
}

}  // namespace switchyard::worker
