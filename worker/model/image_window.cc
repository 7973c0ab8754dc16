#include "worker/model/image_window.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

// A part of the image and what comes of it.
struct Window {
  uint64_t begin = 0, end = 0;
  std::byte* data = nullptr;

  std::byte* At(uint64_t offset) const { return data + (offset - begin); }
};

// One source as an image of its own. Only small ones are more than a copy: vectors in float32.
absl::Status FillAside(const Checkpoint& checkpoint, const ImageTensor& tensor,
                       const ImageSource& source, std::vector<std::byte>& out) {
  ImageLayout aside;
  aside.bytes = source.bytes;
  ImageTensor& only = aside.tensors.emplace_back(tensor);
  only.offset = 0;
  only.bytes = source.bytes;
  only.sources = {source};
  only.sources[0].offset = 0;
  out.resize(source.bytes);
  return FillImage(aside, checkpoint, out, nullptr);
}

absl::Status FillSource(const Checkpoint& checkpoint, const ImageTensor& tensor,
                        const ImageSource& source, const Window& window) {
  const uint64_t first = tensor.offset + source.offset;
  const uint64_t begin = std::max(first, window.begin);
  const uint64_t end = std::min(first + source.bytes, window.end);
  if (begin >= end) return absl::OkStatus();
  if (source.transform == Transform::kCopy) {
    return checkpoint.Read(source.tensor, begin - first, {window.At(begin), end - begin});
  }
  std::vector<std::byte> aside;
  RETURN_IF_ERROR(FillAside(checkpoint, tensor, source, aside));
  std::memcpy(window.At(begin), aside.data() + (begin - first), end - begin);
  return absl::OkStatus();
}

class Reads final : public BlockReads {
 public:
  Reads(const ImageLayout& layout, const Checkpoint& checkpoint, const ImageBlocks& blocks)
      : layout_(layout), checkpoint_(checkpoint), blocks_(blocks) {}

  void Start(uint64_t block, std::byte* to) override { started_.emplace_back(block, to); }
  Done Await() override {
    const auto [block, to] = started_.front();
    started_.pop_front();
    return {block, FillWindow(layout_, checkpoint_, block * kChecksumBlock,
                              {to, blocks_.BlockBytes(block)})};
  }

 private:
  const ImageLayout& layout_;
  const Checkpoint& checkpoint_;
  const ImageBlocks& blocks_;
  std::deque<std::pair<uint64_t, std::byte*>> started_;
};

class Blocks final : public ImageBlocks {
 public:
  Blocks(const ImageLayout& layout, const Checkpoint& checkpoint)
      : layout_(layout), checkpoint_(checkpoint) {}

  std::unique_ptr<BlockReads> Open(size_t) const override {
    return std::make_unique<Reads>(layout_, checkpoint_, *this);
  }
  bool together() const override { return false; }
  uint64_t bytes() const override { return layout_.bytes; }

 private:
  const ImageLayout& layout_;
  const Checkpoint& checkpoint_;
};

}  // namespace

absl::Status FillWindow(const ImageLayout& layout, const Checkpoint& checkpoint, uint64_t begin,
                        std::span<std::byte> out) {
  const Window window = {begin, begin + out.size(), out.data()};
  std::memset(out.data(), 0, out.size());  // what lies between tensors
  // The first tensor that ends behind the window's begin.
  auto tensor = std::partition_point(
      layout.tensors.begin(), layout.tensors.end(),
      [&](const ImageTensor& each) { return each.offset + each.bytes <= window.begin; });
  for (; tensor != layout.tensors.end() && tensor->offset < window.end; ++tensor) {
    for (const ImageSource& source : tensor->sources) {
      RETURN_IF_ERROR(FillSource(checkpoint, *tensor, source, window));
    }
  }
  return absl::OkStatus();
}

std::unique_ptr<const ImageBlocks> CheckpointBlocks(const ImageLayout& layout,
                                                    const Checkpoint& checkpoint) {
  return std::make_unique<Blocks>(layout, checkpoint);
}

}  // namespace switchyard::worker
