// A cached image is one file: a header of a page, then the image, so that the image can be read
// with aligned direct I/O. The header names the key, the size and the checksum of what follows.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/human.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "worker/model/image.h"
#include "worker/model/ordered_jobs.h"

namespace switchyard::worker {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPage = 4096;  // what direct I/O is aligned to
constexpr uint64_t kHeaderBytes = kPage;
constexpr uint64_t kPiece = kChecksumBlock;
constexpr char kSuffix[] = ".image";
constexpr char kTemporary[] = ".partial";
constexpr auto kAbandoned = std::chrono::hours(1);

struct Header {
  char magic[16] = "switchyard img1";
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

absl::Status ReadAll(int fd, uint64_t offset, std::byte* out, uint64_t bytes) {
  while (bytes > 0) {
    const ssize_t n = ::pread(fd, out, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("read of a cached image");
    if (n == 0) return absl::DataLossError("shorter than its header says");
    out += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status WriteAll(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), std::min<size_t>(data.size(), size_t{1} << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("write of a cached image");
    data = data.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

// A file whose pages are taken from the page cache if they are there, and else read around it
// (O_DIRECT): a copy less, and nobody's pages are pushed out.
class DirectFile {
 public:
  explicit DirectFile(const std::string& path)
      : buffered_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (!buffered_.valid()) return;
    // The same file, whatever the path leads to by now.
    const std::string again = absl::StrCat("/proc/self/fd/", buffered_.get());
    direct_ = UniqueFd(::open(again.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  }

  bool valid() const { return buffered_.valid(); }
  int fd() const { return buffered_.get(); }

  absl::Status Read(uint64_t offset, std::byte* out, uint64_t bytes) const {
    const bool direct = direct_.valid() && !LastPageIsCached(offset, bytes);
    const uint64_t done = direct ? ReadDirect(offset, out, bytes) : 0;
    return ReadAll(buffered_.get(), offset + done, out + done, bytes - done);
  }

 private:
  // Whoever has read the piece before us has read its end. Only a byte is asked for: a read that
  // may not wait still starts the kernel's reading ahead, as far as it was to go.
  bool LastPageIsCached(uint64_t offset, uint64_t bytes) const {
    std::byte last;
    const iovec to = {&last, 1};
    return ::preadv2(buffered_.get(), &to, 1, static_cast<off_t>(offset + bytes - 1), RWF_NOWAIT) ==
           1;
  }
  // Of the leading whole pages, as many bytes as could be read. An image that is not aligned, or a
  // file system with larger blocks, leaves all to the page cache.
  uint64_t ReadDirect(uint64_t offset, std::byte* out, uint64_t bytes) const {
    const uint64_t whole = bytes / kPage * kPage;
    uint64_t done = 0;
    while (done < whole) {
      const ssize_t n =
          ::pread(direct_.get(), out + done, whole - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;  // the buffered read says what is wrong
      done += static_cast<uint64_t>(n);
    }
    return done;
  }

  UniqueFd buffered_, direct_;
};

absl::StatusOr<uint64_t> ReadVerified(const DirectFile& file, const ImageLayout& layout,
                                      std::span<std::byte> image,
                                      const std::function<bool(uint64_t)>& progress) {
  Header header;
  RETURN_IF_ERROR(ReadAll(file.fd(), 0, reinterpret_cast<std::byte*>(&header), sizeof(header)));
  const Header wanted = MakeHeader(layout, header.checksum);
  if (std::memcmp(&header, &wanted, sizeof(header)) != 0) {
    return absl::DataLossError("its header is not that of this image");
  }
  // All of it is told of when the checksum is known to be right.
  const uint64_t pieces = CeilDiv(layout.bytes, kPiece);
  std::vector<uint64_t> digests(pieces);
  RETURN_IF_ERROR(RunInOrder(
      pieces,
      [&](size_t i) {
        const uint64_t at = i * kPiece;
        const auto piece = image.subspan(at, std::min(kPiece, layout.bytes - at));
        absl::Status read = file.Read(kHeaderBytes + at, piece.data(), piece.size());
        if (read.ok()) digests[i] = BlockDigest(piece, i);
        return read;
      },
      [&](size_t leading) {
        return leading == pieces || !progress || progress(leading * kPiece);
      }));
  if (ImageChecksum(digests, layout.bytes) != header.checksum) {
    return absl::DataLossError("its checksum is wrong");
  }
  if (progress && !progress(layout.bytes)) {
    return absl::CancelledError("the image is not wanted any more");
  }
  return header.checksum;
}

struct CacheFile {
  fs::path path;
  uint64_t bytes = 0;
  fs::file_time_type used;
};

// Files of the cache, longest unused first; left-overs of writers that died are removed on the way.
std::vector<CacheFile> ListCache(const std::string& dir) {
  std::vector<CacheFile> files;
  std::error_code unreadable, error;  // of the directory; of a file, which may be gone by now
  for (fs::directory_iterator next(dir, unreadable);
       !unreadable && next != fs::directory_iterator(); next.increment(unreadable)) {
    const fs::directory_entry& entry = *next;
    const std::string name = entry.path().filename().string();
    const fs::file_time_type used = entry.last_write_time(error);
    if (error || !entry.is_regular_file(error)) continue;
    if (absl::EndsWith(name, kTemporary)) {
      if (fs::file_time_type::clock::now() - used > kAbandoned) fs::remove(entry.path(), error);
    } else if (absl::EndsWith(name, kSuffix)) {
      const uint64_t bytes = entry.file_size(error);
      if (!error) files.push_back({entry.path(), bytes, used});
    }
  }
  std::sort(files.begin(), files.end(),
            [](const CacheFile& a, const CacheFile& b) { return a.used < b.used; });
  return files;
}

void MakeRoom(const std::string& dir, uint64_t bytes, uint64_t max_bytes) {
  const std::vector<CacheFile> files = ListCache(dir);
  uint64_t total = bytes;
  for (const CacheFile& file : files) total += file.bytes;
  for (const CacheFile& file : files) {
    if (total <= max_bytes) return;
    std::error_code error;
    fs::remove(file.path, error);
    total -= file.bytes;
  }
}

absl::Status WriteFile(const std::string& path, const ImageLayout& layout,
                       std::span<const std::byte> image,
                       const std::function<bool(uint64_t)>& progress) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoStatus(path.c_str());
  std::vector<std::byte> page(kHeaderBytes);
  const Header header = MakeHeader(layout, ImageChecksum(image));
  std::memcpy(page.data(), &header, sizeof(header));
  RETURN_IF_ERROR(WriteAll(fd.get(), page));
  for (uint64_t at = 0; at < image.size(); at += kPiece) {
    if (progress && !progress(at)) return absl::CancelledError("the image is not wanted any more");
    RETURN_IF_ERROR(WriteAll(fd.get(), image.subspan(at, std::min(kPiece, image.size() - at))));
  }
  if (::fsync(fd.get()) != 0) return ErrnoStatus(path.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> ReadImageCache(const std::string& dir, const ImageLayout& layout,
                                        std::span<std::byte> image,
                                        const std::function<bool(uint64_t)>& progress) {
  const std::string path = absl::StrCat(dir, "/", layout.key, kSuffix);
  if (layout.key.empty() || image.size() < layout.bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no key, or too few bytes for it"));
  }
  const DirectFile file(path);
  if (!file.valid()) return ErrnoStatus(path.c_str());
  absl::StatusOr<uint64_t> checksum = ReadVerified(file, layout, image, progress);
  if (absl::IsDataLoss(checksum.status())) {
    ::unlink(path.c_str());
    return absl::DataLossError(absl::StrCat(path, ": ", checksum.status().message(), "; removed"));
  }
  if (checksum.ok()) ::futimens(file.fd(), nullptr);  // the time says when it was used last
  return checksum;
}

absl::Status WriteImageCache(const std::string& dir, const ImageLayout& layout,
                             std::span<const std::byte> image, uint64_t max_bytes,
                             const std::function<bool(uint64_t)>& progress) {
  if (layout.key.empty() || image.size() < layout.bytes) {
    return absl::InvalidArgumentError("image cache: no key, or too few bytes for the image");
  }
  const uint64_t bytes = kHeaderBytes + layout.bytes;
  if (bytes > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(dir, ": an image of ", HumanBytes(bytes),
                                                     " does not fit a cache of ",
                                                     HumanBytes(max_bytes)));
  }
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return absl::UnavailableError(absl::StrCat(dir, ": ", error.message()));
  MakeRoom(dir, bytes, max_bytes);
  const std::string path = absl::StrCat(dir, "/", layout.key, kSuffix);
  const std::string beside = absl::StrCat(path, ".", ::getpid(), kTemporary);
  absl::Status status = WriteFile(beside, layout, image.first(layout.bytes), progress);
  if (status.ok() && ::rename(beside.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(path.c_str());
  }
  if (!status.ok()) ::unlink(beside.c_str());
  return status;
}

}  // namespace switchyard::worker
