// An image in pieces is the image: windows of it, and a file that is made without holding it.

#include "worker/model/image_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "tests/worker/io/checkpoint_writer.h"
#include "tests/worker/model/changed_model.h"
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

std::string Golden(const std::string& name) {
  return std::string(SWITCHYARD_SOURCE_DIR) + "/tests/golden/" + name;
}

std::vector<std::string> GoldenModels(const std::string& folder = "models") {
  std::vector<std::string> dirs;
  for (const auto& entry : std::filesystem::directory_iterator(Golden(folder))) {
    if (entry.is_directory()) dirs.push_back(entry.path().string());
  }
  std::sort(dirs.begin(), dirs.end());
  return dirs;
}

void ExpectWindowsAreParts(const std::string& dir, const Filled& filled) {
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

TEST(ImageWindow, AnyWindowIsThatPartOfTheImage) {
  for (const std::string folder : {"models", "quantized"}) {
    int streamed = 0;
    for (const std::string& dir : GoldenModels(folder)) {
      const Filled filled = Fill(dir, Quantize::kAsStored);
      if (filled.layout.took_work) continue;
      ++streamed;
      ExpectWindowsAreParts(dir, filled);
    }
    EXPECT_GE(streamed, folder == "models" ? 5 : 3);
  }
}

// A checkpoint of `name` with some bytes changed.
void WriteChanged(const TempDir& dir, const std::string& name,
                  const std::function<void(std::vector<WrittenTensor>&)>& change) {
  std::filesystem::copy(Golden(name) + "/config.json", dir / "config.json");
  std::vector<WrittenTensor> tensors = ReadTensors(Golden(name) + "/model.safetensors");
  change(tensors);
  WriteSafetensors(dir / "model.safetensors", tensors);
}

const ImageTensor& Tensor(const ImageLayout& layout, Role role) {
  return *std::find_if(layout.tensors.begin(), layout.tensors.end(),
                       [&](const ImageTensor& tensor) { return tensor.role == role; });
}

// Weights that are no numbers at both ends of a tensor are seen only by windows that have them:
// what is read does not grow with the tensor.
TEST(ImageWindow, OfFp8WeightsReadsNoMoreThanItsPart) {
  const TempDir dir;
  const std::string down = "model.layers.0.mlp.down_proj.weight";
  WriteChanged(dir, "quantized/llama_fp8_tensor", [&](std::vector<WrittenTensor>& tensors) {
    WrittenTensor& tensor = Find(tensors, down);
    ASSERT_EQ(tensor.dtype, "F8_E4M3");
    tensor.data.front() = tensor.data.back() = '\x7f';
  });
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto layout = PlanImage(*ReadArchitecture(checkpoint->config()), *checkpoint);
  ASSERT_TRUE(layout.ok()) << layout.status();
  ASSERT_FALSE(layout->took_work);
  const ImageTensor& tensor = Tensor(*layout, Role::kDown);
  constexpr uint64_t kPiece = 256;
  std::vector<std::byte> window(kPiece);
  for (uint64_t at = 0; at < tensor.bytes; at += kPiece) {
    const absl::Status filled = FillWindow(*layout, *checkpoint, tensor.offset + at, window);
    const bool ends = at == 0 || at + kPiece >= tensor.bytes;
    EXPECT_EQ(filled.ok(), !ends) << filled << " at " << at;
    if (!filled.ok()) {
      EXPECT_THAT(std::string(filled.message()), testing::HasSubstr(dir.path() + ": tensor"));
    }
  }
}

// The same of numbers that become float32: the file ends within the router, the last tensor.
TEST(ImageWindow, OfConvertedNumbersReadsNoMoreThanItsPart) {
  const TempDir dir;
  const std::string router = "model.layers.1.mlp.gate.weight";
  WriteChanged(dir, "models/qwen3_moe_normalized", [&](std::vector<WrittenTensor>& tensors) {
    std::stable_partition(tensors.begin(), tensors.end(),
                          [&](const WrittenTensor& tensor) { return tensor.name != router; });
  });
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto layout = PlanImage(*ReadArchitecture(checkpoint->config()), *checkpoint);
  ASSERT_TRUE(layout.ok()) << layout.status();
  const TensorInfo& stored = *checkpoint->Find(router);
  const std::string path = dir / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - stored.bytes / 2);
  for (const ImageTensor& tensor : layout->tensors) {
    if (tensor.role != Role::kRouter || tensor.layer != 1) continue;
    std::vector<std::byte> half(tensor.bytes / 2);
    EXPECT_TRUE(FillWindow(*layout, *checkpoint, tensor.offset, half).ok());
    EXPECT_FALSE(FillWindow(*layout, *checkpoint, tensor.offset + 4, half).ok());
  }
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
