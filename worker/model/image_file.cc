#include "worker/model/image_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kPage = 4096;  // what direct I/O is aligned to

struct Header {
  char magic[16] = "switchyard img2";
  char key[64] = {};
  uint64_t bytes = 0;
  uint64_t checksum = 0;
};

Header MakeHeader(const ImageLayout& layout, uint64_t checksum) {
  Header header;
  std::memcpy(header.key, layout.key.data(), std::min(layout.key.size(), sizeof(header.key)));
  header.bytes = layout.bytes;
  header.checksum = checksum;
  return header;
}

// What says that the bytes are lost, and not that reading failed for now.
bool IsLost(int error) {
  return error == EIO || error == ENODATA || error == EBADMSG || error == EUCLEAN;
}

}  // namespace

uint64_t ImageFileOffset(uint64_t image_bytes) {
  return RoundUp(sizeof(Header) + CeilDiv(image_bytes, kChecksumBlock) * sizeof(uint64_t), kPage);
}

uint64_t ImageFileBytes(uint64_t image_bytes) { return ImageFileOffset(image_bytes) + image_bytes; }

std::vector<std::byte> ImageFileHeader(const ImageLayout& layout,
                                       std::span<const uint64_t> digests) {
  std::vector<std::byte> pages(ImageFileOffset(layout.bytes));
  const Header header = MakeHeader(layout, ImageChecksum(digests, layout.bytes));
  std::memcpy(pages.data(), &header, sizeof(header));
  std::memcpy(pages.data() + sizeof(header), digests.data(), digests.size_bytes());
  return pages;
}

// The blocks that one thread reads. A direct read brings the whole pages of a block; whatever it
// leaves, or cannot do at all, is read through the page cache, which says what is wrong.
class ImageFile::Blocks final : public BlockReads {
 public:
  Blocks(const ImageFile& file, size_t depth)
      : file_(file), places_(depth), reads_(file.make_reads_(depth)) {
    for (size_t i = 0; i < depth; ++i) free_.push_back(i);
  }

  void Start(uint64_t block, std::byte* to) override {
    const size_t place = free_.back();
    free_.pop_back();
    places_[place] = {block, to};
    const uint64_t bytes = file_.BlockBytes(block);
    const uint64_t whole = bytes / kPage * kPage;
    const bool aligned = reinterpret_cast<uintptr_t>(to) % kPage == 0;
    const bool direct =
        file_.direct_.valid() && aligned && whole > 0 && !LastByteIsCached(OffsetOf(block), bytes);
    if (direct) {
      reads_->Start({file_.direct_.get(), OffsetOf(block), to, whole, place});
    } else {
      buffered_.push_back(place);
    }
  }

  Done Await() override {
    size_t place = 0;
    uint64_t done = 0;
    if (!buffered_.empty()) {
      place = buffered_.front();
      buffered_.pop_front();
    } else {
      const FileReads::Ended ended = reads_->Await();
      place = ended.tag;
      done = static_cast<uint64_t>(std::max<int64_t>(ended.result, 0));
    }
    free_.push_back(place);
    const auto [block, to] = places_[place];
    return {block, Finish(block, to, done)};
  }

 private:
  struct Place {
    uint64_t block = 0;
    std::byte* to = nullptr;
  };

  uint64_t OffsetOf(uint64_t block) const { return file_.data_offset_ + block * kChecksumBlock; }

  // Whoever has read the block before us has read its end. Only a byte is asked for: a read that
  // may not wait still starts the kernel's reading ahead, as far as it was to go.
  bool LastByteIsCached(uint64_t offset, uint64_t bytes) const {
    std::byte last;
    const iovec to = {&last, 1};
    return ::preadv2(file_.buffered_.get(), &to, 1, static_cast<off_t>(offset + bytes - 1),
                     RWF_NOWAIT) == 1;
  }

  absl::Status Finish(uint64_t block, std::byte* to, uint64_t done) const {
    const uint64_t bytes = file_.BlockBytes(block);
    RETURN_IF_ERROR(file_.ReadAll(OffsetOf(block) + done, to + done, bytes - done));
    if (BlockDigest({to, bytes}, block) == file_.digests_[block]) return absl::OkStatus();
    return file_.Damaged(
        absl::StrCat("block ", block, " of ", file_.blocks(), " is not what was written"));
  }

  const ImageFile& file_;
  std::vector<Place> places_;
  std::vector<size_t> free_;
  std::deque<size_t> buffered_;
  std::unique_ptr<FileReads> reads_;  // last: it may still be reading when it goes
};

absl::StatusOr<std::unique_ptr<ImageFile>> ImageFile::Open(const std::string& path,
                                                           const ImageLayout& layout,
                                                           MakeReads make_reads) {
  std::unique_ptr<ImageFile> file(new ImageFile());
  file->path_ = path;
  file->buffered_ = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file->buffered_.valid()) return ErrnoStatus(path.c_str());
  // The same file, whatever the path leads to by now.
  const std::string again = absl::StrCat("/proc/self/fd/", file->buffered_.get());
  file->direct_ = UniqueFd(::open(again.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  file->make_reads_ = std::move(make_reads);
  file->together_ = file->make_reads_(1)->together();
  RETURN_IF_ERROR(file->ReadHeader(layout));
  return file;
}

absl::Status ImageFile::Damaged(const std::string& how) const {
  return absl::DataLossError(absl::StrCat(path_, ": ", how));
}

// A file that the disk cannot read is damaged: it can be made again.
absl::Status ImageFile::ReadAll(uint64_t offset, std::byte* out, uint64_t bytes) const {
  while (bytes > 0) {
    const ssize_t n = ::pread(buffered_.get(), out, bytes, static_cast<off_t>(offset));
    const int error = errno;
    if (n < 0 && error == EINTR) continue;
    if (n < 0) {
      const absl::Status failed = absl::ErrnoToStatus(error, absl::StrCat("read at ", offset));
      if (IsLost(error)) return Damaged(std::string(failed.message()));
      return absl::Status(failed.code(), absl::StrCat(path_, ": ", failed.message()));
    }
    if (n == 0) return Damaged("shorter than its header says");
    out += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status ImageFile::ReadHeader(const ImageLayout& layout) {
  Header header;
  RETURN_IF_ERROR(ReadAll(0, reinterpret_cast<std::byte*>(&header), sizeof(header)));
  const Header wanted = MakeHeader(layout, header.checksum);
  if (std::memcmp(&header, &wanted, sizeof(header)) != 0) {
    return Damaged("its header is not that of this image");
  }
  bytes_ = layout.bytes;
  checksum_ = header.checksum;
  data_offset_ = ImageFileOffset(bytes_);
  digests_.resize(blocks());
  RETURN_IF_ERROR(ReadAll(sizeof(header), reinterpret_cast<std::byte*>(digests_.data()),
                          digests_.size() * sizeof(uint64_t)));
  if (ImageChecksum(digests_, bytes_) != checksum_) {
    return Damaged("its checksum is not that of its digests");
  }
  struct stat st = {};
  if (::fstat(buffered_.get(), &st) != 0) return ErrnoStatus(path_.c_str());
  if (static_cast<uint64_t>(st.st_size) == ImageFileBytes(bytes_)) return absl::OkStatus();
  return Damaged(absl::StrCat("it has ", st.st_size, " bytes instead of ", ImageFileBytes(bytes_)));
}

std::unique_ptr<BlockReads> ImageFile::Open(size_t depth) const {
  return std::make_unique<Blocks>(*this, depth);
}

void ImageFile::MarkUsed() const { ::futimens(buffered_.get(), nullptr); }

}  // namespace switchyard::worker
