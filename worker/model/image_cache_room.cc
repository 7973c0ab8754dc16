#include "worker/model/image_cache_room.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/human.h"

namespace switchyard::worker {
namespace {

namespace fs = std::filesystem;

// For file systems that do not say whether a writer lives.
constexpr auto kAbandoned = std::chrono::hours(1);

struct CachedImage {
  fs::path path;
  uint64_t bytes = 0;
  fs::file_time_type used;
};

struct Contents {
  std::vector<CachedImage> images;  // longest unused first
  uint64_t being_written = 0;       // bytes
};

int Lock(int fd, int how) {
  int result = 0;
  do {
    result = ::flock(fd, how);
  } while (result != 0 && errno == EINTR);
  return result;
}

// The kernel lets go of a writer's lock when it dies.
bool WriterIsDead(const fs::path& path, fs::file_time_type written) {
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (fd.valid() && Lock(fd.get(), LOCK_EX | LOCK_NB) == 0) return true;
  return errno != EWOULDBLOCK && fs::file_time_type::clock::now() - written > kAbandoned;
}

// Left-overs are removed on the way.
Contents ListCache(const std::string& dir) {
  Contents contents;
  std::error_code unreadable, error;  // of the directory; of a file, which may be gone by now
  for (fs::directory_iterator next(dir, unreadable);
       !unreadable && next != fs::directory_iterator(); next.increment(unreadable)) {
    const fs::directory_entry& entry = *next;
    const std::string name = entry.path().filename().string();
    const fs::file_time_type used = entry.last_write_time(error);
    if (error || !entry.is_regular_file(error)) continue;
    const uint64_t bytes = entry.file_size(error);
    if (error) continue;
    if (absl::EndsWith(name, kImageSuffix)) {
      contents.images.push_back({entry.path(), bytes, used});
    } else if (absl::EndsWith(name, kPartialSuffix)) {
      if (WriterIsDead(entry.path(), used) && fs::remove(entry.path(), error)) continue;
      contents.being_written += bytes;
    }
  }
  std::sort(contents.images.begin(), contents.images.end(),
            [](const CachedImage& a, const CachedImage& b) { return a.used < b.used; });
  return contents;
}

}  // namespace

UniqueFd LockImageCache(const std::string& dir) {
  UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) (void)Lock(fd.get(), LOCK_EX);
  return fd;
}

uint64_t MakeImageRoom(const std::string& dir, const std::string& kept, uint64_t bytes,
                       uint64_t max_bytes) {
  const Contents contents = ListCache(dir);
  uint64_t others = contents.being_written;
  for (const CachedImage& image : contents.images) {
    if (image.path != kept) others += image.bytes;
  }
  for (const CachedImage& image : contents.images) {
    if (others + bytes <= max_bytes) break;
    std::error_code error;
    if (image.path == kept || !fs::remove(image.path, error)) continue;
    others -= image.bytes;
  }
  return others;
}

absl::Status TakeImageRoom(int fd, uint64_t bytes) {
  (void)Lock(fd, LOCK_EX | LOCK_NB);  // where there are none, the file's age has to do
  int result = 0;
  do {
    result = ::fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return absl::OkStatus();
  // A size alone is what the others count, too.
  if (errno == EOPNOTSUPP && ::ftruncate(fd, static_cast<off_t>(bytes)) == 0) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, absl::StrCat("no room for an image of ", HumanBytes(bytes)));
}

}  // namespace switchyard::worker
