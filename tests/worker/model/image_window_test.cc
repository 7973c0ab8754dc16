// An image in pieces is the image: windows of it, and a file that is made without holding it.

#include "worker/model/image_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "tests/worker/io/checkpoint_writer.h"
#include "worker/model/families.h"
#include "worker/model/image_cache.h"

namespace switchyard::worker {
namespace {

struct Filled {
  Checkpoint checkpoint;
  ImageLayout layout;
  std::vector<std::byte> image;
};

Filled Fill(const std::string& dir, Quantize quantize) {
  auto checkpoint = Checkpoint::Open(dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto arch = ReadArchitecture(checkpoint->config());
  EXPECT_TRUE(arch.ok()) << arch.status();
  auto layout = PlanImage(*arch, *checkpoint, quantize);
  EXPECT_TRUE(layout.ok()) << layout.status();
  Filled filled{*std::move(checkpoint), *std::move(layout), {}};
  filled.image.resize(filled.layout.bytes);
  EXPECT_TRUE(FillImage(filled.layout, filled.checkpoint, filled.image, nullptr).ok());
  return filled;
}

std::vector<std::string> GoldenModels() {
  std::vector<std::string> dirs;
  const std::string root = std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/models";
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.is_directory()) dirs.push_back(entry.path().string());
  }
  std::sort(dirs.begin(), dirs.end());
  return dirs;
}

TEST(ImageWindow, AnyWindowOfACopyIsThatPartOfTheImage) {
  int copies = 0;
  for (const std::string& dir : GoldenModels()) {
    const Filled filled = Fill(dir, Quantize::kAsStored);
    if (filled.layout.took_work) continue;
    ++copies;
    const uint64_t bytes = filled.layout.bytes;
    std::mt19937_64 random(bytes);
    for (int i = 0; i < 40; ++i) {
      const uint64_t begin = i == 0 ? 0 : random() % bytes;
      const uint64_t size = i == 0 ? bytes : 1 + random() % std::min(bytes - begin, bytes / 5 + 1);
      std::vector<std::byte> window(size, std::byte{0x5a});
      ASSERT_TRUE(FillWindow(filled.layout, filled.checkpoint, begin, window).ok());
      ASSERT_EQ(std::memcmp(window.data(), filled.image.data() + begin, size), 0)
          << dir << " [" << begin << ", " << begin + size << ")";
    }
  }
  EXPECT_GT(copies, 5);
}

TEST(ImageWindow, WhatIsWrongWithTheCheckpointIsTold) {
  Filled filled = Fill(GoldenModels().front(), Quantize::kAsStored);
  for (ImageTensor& tensor : filled.layout.tensors) {
    for (ImageSource& source : tensor.sources) source.tensor = "gone";
  }
  std::vector<std::byte> window(100);
  EXPECT_FALSE(FillWindow(filled.layout, filled.checkpoint, 0, window).ok());
}

TEST(ImageBuild, AFileThatIsMadeInPiecesHoldsTheImage) {
  int built = 0;
  for (const std::string& dir : GoldenModels()) {
    for (const Quantize quantize : {Quantize::kAsStored, Quantize::kFp8}) {
      auto checkpoint = Checkpoint::Open(dir);
      ASSERT_TRUE(checkpoint.ok());
      const auto arch = ReadArchitecture(checkpoint->config());
      if (!PlanImage(*arch, *checkpoint, quantize).ok()) continue;  // quantized already
      const Filled filled = Fill(dir, quantize);
      if (!filled.layout.took_work) continue;
      ++built;
      TempDir cache;
      uint64_t last = 0;
      FillReport report;
      const absl::Status status = BuildImageCache(
          cache.path(), filled.layout, filled.checkpoint, kImageCacheBytes,
          [&](uint64_t done) {
            EXPECT_GE(done, last);
            last = done;
            return true;
          },
          &report);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(last, filled.layout.bytes);
      EXPECT_EQ(report.worst_name.empty(), quantize == Quantize::kAsStored);
      std::vector<std::byte> read(filled.layout.bytes);
      const auto checksum = ReadImageCache(cache.path(), filled.layout, read, nullptr);
      ASSERT_TRUE(checksum.ok()) << checksum.status();
      EXPECT_EQ(*checksum, ImageChecksum(filled.image));
      EXPECT_EQ(read, filled.image) << dir;
    }
  }
  EXPECT_GT(built, 5);
}

TEST(ImageBuild, CanBeCutShortAndRefusesWhatTheCacheCannotHold) {
  const Filled filled = Fill(GoldenModels().front(), Quantize::kAsStored);
  TempDir cache;
  EXPECT_TRUE(absl::IsCancelled(BuildImageCache(cache.path(), filled.layout, filled.checkpoint,
                                                kImageCacheBytes, [](uint64_t) { return false; })));
  EXPECT_TRUE(absl::IsResourceExhausted(BuildImageCache(
      cache.path(), filled.layout, filled.checkpoint, filled.layout.bytes, nullptr)));
  EXPECT_TRUE(std::filesystem::is_empty(cache.path()));
}

}  // namespace
}  // namespace switchyard::worker
