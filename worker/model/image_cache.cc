// The image cache: a directory of image files (image_file.h).

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "worker/model/image_build.h"
#include "worker/model/image_cache.h"
#include "worker/model/image_cache_room.h"
#include "worker/model/image_file.h"
#include "worker/model/image_follower.h"
#include "worker/model/read_ahead.h"

namespace switchyard::worker {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWritePiece = uint64_t{8} << 20;  // may be cut short between two of them

// Tells `progress` of every block that is there, all before it included.
absl::StatusOr<uint64_t> ReadVerified(const ImageFile& file, std::span<std::byte> image,
                                      const std::function<bool(uint64_t)>& progress) {
  const uint64_t blocks = file.blocks();
  ReadAhead ahead(file, 0, blocks, image.first(file.bytes()));
  for (uint64_t there = 0; there < blocks;) {
    ASSIGN_OR_RETURN(there, ahead.Await(there, [] { return true; }));
    const uint64_t bytes = std::min(there * kChecksumBlock, file.bytes());
    if (progress && !progress(bytes)) {
      return absl::CancelledError("the image is not wanted any more");
    }
  }
  return file.checksum();
}

// Nobody reads it before its master is gone: the page cache is others'.
absl::Status WriteFile(int fd, const ImageLayout& layout, std::span<const std::byte> image,
                       const std::function<bool(uint64_t)>& progress) {
  const uint64_t offset = ImageFileOffset(layout.bytes);
  ImageFollower follower(fd, layout, image);
  for (uint64_t at = 0, settled = 0; at < image.size();) {
    const auto piece = image.subspan(at, std::min(kWritePiece, image.size() - at));
    RETURN_IF_ERROR(WriteAt(fd, offset + at, piece));
    at += piece.size();
    RETURN_IF_ERROR(follower.Advance(at));
    if (follower.settled() > settled) {
      settled = follower.settled();
      (void)::posix_fadvise(fd, 0, static_cast<off_t>(offset + settled), POSIX_FADV_DONTNEED);
    }
    if (progress && !progress(at)) return absl::CancelledError("the image is not wanted any more");
  }
  RETURN_IF_ERROR(follower.Finish());
  (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

std::string PathOf(const std::string& dir, const ImageLayout& layout) {
  return absl::StrCat(dir, "/", layout.key, kImageSuffix);
}

// What is damaged goes, so that it is made anew.
absl::Status Removed(const std::string& path, const absl::Status& damage) {
  if (!absl::IsDataLoss(damage)) return damage;
  ::unlink(path.c_str());
  return absl::DataLossError(absl::StrCat(damage.message(), "; removed"));
}

// A confined worker may write to the directory that was there when it started, and to no other that
// takes its place.
absl::Status CannotWrite(const std::string& dir, int error, const absl::Status& why) {
  if (error != EACCES) return why;
  return absl::Status(why.code(),
                      absl::StrCat(why.message(), "; if ", dir,
                                   " was removed or replaced while this worker ran, a new one can "
                                   "write: switchyard unload NAME, then switchyard load NAME"));
}

// If others are writing so much that there would be more than the bound.
enum class Crowded { kRefuse, kGoOn };

// Takes room for a file beside, which others count from then on.
absl::StatusOr<UniqueFd> BeginFile(const std::string& dir, const std::string& beside,
                                   uint64_t bytes, uint64_t max_bytes, Crowded crowded) {
  const UniqueFd alone = LockImageCache(dir);
  const uint64_t others = MakeImageRoom(dir, "", bytes, max_bytes);
  if (others + bytes > max_bytes && crowded == Crowded::kRefuse) {
    return absl::ResourceExhaustedError(absl::StrCat(
        dir, ": an image of ", HumanBytes(bytes), " is not kept, since images of ",
        HumanBytes(others), " are being written to a cache of ", HumanBytes(max_bytes)));
  }
  UniqueFd fd(::open(beside.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return CannotWrite(dir, errno, ErrnoStatus(beside.c_str()));
  absl::Status taken = TakeImageRoom(fd.get(), bytes);
  if (taken.ok()) return fd;
  ::unlink(beside.c_str());
  return absl::Status(taken.code(), absl::StrCat(beside, ": ", taken.message()));
}

// What others have begun beyond the bound meanwhile, or where nothing can be locked, is found here.
absl::Status EndFile(const std::string& dir, const std::string& beside, const std::string& path,
                     uint64_t bytes, uint64_t max_bytes) {
  const UniqueFd alone = LockImageCache(dir);
  if (::rename(beside.c_str(), path.c_str()) != 0) return ErrnoStatus("rename");
  MakeImageRoom(dir, path, bytes, max_bytes);
  return absl::OkStatus();
}

// Makes room, has `write` write a file beside, and renames it.
absl::Status AddFile(const std::string& dir, const ImageLayout& layout, uint64_t max_bytes,
                     Crowded crowded, const std::function<absl::Status(int fd)>& write) {
  if (layout.key.empty()) return absl::InvalidArgumentError("image cache: the image has no key");
  const uint64_t bytes = ImageFileBytes(layout.bytes);
  if (bytes > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(dir, ": an image of ", HumanBytes(bytes),
                                                     " does not fit a cache of ",
                                                     HumanBytes(max_bytes)));
  }
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) {
    return CannotWrite(dir, error.value(),
                       absl::UnavailableError(absl::StrCat(dir, ": ", error.message())));
  }
  const std::string path = PathOf(dir, layout);
  const std::string beside = absl::StrCat(path, ".", ::getpid(), kPartialSuffix);
  ASSIGN_OR_RETURN(const UniqueFd fd, BeginFile(dir, beside, bytes, max_bytes, crowded));
  absl::Status status = write(fd.get());
  if (status.ok()) status = EndFile(dir, beside, path, bytes, max_bytes);
  if (status.ok()) return status;
  ::unlink(beside.c_str());
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<const ImageBlocks>> OpenImageCache(const std::string& dir,
                                                                  const ImageLayout& layout) {
  const std::string path = PathOf(dir, layout);
  auto file = ImageFile::Open(path, layout);
  if (!file.ok()) return Removed(path, file.status());
  (*file)->MarkUsed();
  return std::unique_ptr<const ImageBlocks>(*std::move(file));
}

void RemoveFromImageCache(const std::string& dir, const ImageLayout& layout) {
  ::unlink(PathOf(dir, layout).c_str());
}

absl::StatusOr<uint64_t> ReadImageCache(const std::string& dir, const ImageLayout& layout,
                                        std::span<std::byte> image,
                                        const std::function<bool(uint64_t)>& progress) {
  const std::string path = PathOf(dir, layout);
  if (layout.key.empty() || image.size() < layout.bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no key, or too few bytes for it"));
  }
  const auto file = ImageFile::Open(path, layout);
  if (!file.ok()) return Removed(path, file.status());
  absl::StatusOr<uint64_t> checksum = ReadVerified(**file, image, progress);
  if (!checksum.ok()) return Removed(path, checksum.status());
  (*file)->MarkUsed();
  return checksum;
}

absl::Status WriteImageCache(const std::string& dir, const ImageLayout& layout,
                             std::span<const std::byte> image, uint64_t max_bytes,
                             const std::function<bool(uint64_t)>& progress) {
  if (image.size() < layout.bytes) {
    return absl::InvalidArgumentError("image cache: too few bytes for the image");
  }
  return AddFile(dir, layout, max_bytes, Crowded::kRefuse, [&](int fd) {
    return WriteFile(fd, layout, image.first(layout.bytes), progress);
  });
}

absl::Status BuildImageCache(const std::string& dir, const ImageLayout& layout,
                             const Checkpoint& checkpoint, uint64_t max_bytes,
                             const std::function<bool(uint64_t)>& progress, FillReport* report) {
  return AddFile(dir, layout, max_bytes, Crowded::kGoOn,
                 [&](int fd) { return BuildImageFile(fd, layout, checkpoint, progress, report); });
}

}  // namespace switchyard::worker
