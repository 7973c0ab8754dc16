#include "worker/model/image_window.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/status_macros.h"
#include "worker/model/image_elements.h"

namespace switchyard::worker {
namespace {

// A part of the image and what comes of it.
struct Window {
  uint64_t begin = 0, end = 0;
  std::byte* data = nullptr;

  std::byte* At(uint64_t offset) const { return data + (offset - begin); }
};

// The part of a source that lies in the window. Elements that it cuts are filled beside it; so is
// what an unaligned window is given.
absl::Status FillSource(const Checkpoint& checkpoint, const ImageTensor& tensor,
                        const ImageSource& source, const Window& window) {
  const uint64_t first = tensor.offset + source.offset;
  const uint64_t begin = std::max(first, window.begin);
  const uint64_t end = std::min(first + source.bytes, window.end);
  if (begin >= end) return absl::OkStatus();
  if (!IsElementwise(source.transform)) {
    return absl::InternalError(
        absl::StrCat("image: tensor ", QuotedName(source.tensor), " cannot be filled in pieces"));
  }
  const uint64_t element = ElementBytes(tensor);
  const uint64_t from = (begin - first) / element, to = CeilDiv(end - first, element);
  std::byte* const at = window.At(begin);
  if ((begin - first) % element == 0 && (end - first) % element == 0 &&
      reinterpret_cast<uintptr_t>(at) % element == 0) {
    return FillElements(checkpoint, source, from, to, at);
  }
  std::vector<std::byte> aside((to - from) * element);
  RETURN_IF_ERROR(FillElements(checkpoint, source, from, to, aside.data()));
  std::memcpy(at, aside.data() + (begin - first - from * element), end - begin);
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
      RETURN_IF_ERROR(InCheckpoint(checkpoint, FillSource(checkpoint, *tensor, source, window)));
    }
  }
  return absl::OkStatus();
}

std::unique_ptr<const ImageBlocks> CheckpointBlocks(const ImageLayout& layout,
                                                    const Checkpoint& checkpoint) {
  return std::make_unique<Blocks>(layout, checkpoint);
}

}  // namespace switchyard::worker
