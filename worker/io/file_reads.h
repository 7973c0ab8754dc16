#pragma once

// Reads of files, several of them on their way at once, where the kernel allows io_uring; one after
// the other where it does not (containers often forbid it).

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace switchyard::worker {

// For one thread.
class FileReads {
 public:
  struct Read {
    int fd = -1;
    uint64_t offset = 0;
    std::byte* to = nullptr;
    uint64_t bytes = 0;
    uint64_t tag = 0;  // the caller's
  };
  struct Ended {
    uint64_t tag = 0;
    int64_t result = 0;  // as of pread: bytes, perhaps fewer than were asked for; or -errno
  };

  // Those on their way have ended by then.
  virtual ~FileReads() = default;
  // No more may be on their way than this was made for.
  virtual void Start(const Read& read) = 0;
  // Waits until one that was started has ended; there is one.
  virtual Ended Await() = 0;
  // Whether several really are on their way together.
  virtual bool together() const = 0;
};

// Makes one for up to `depth` reads.
using MakeReads = std::function<std::unique_ptr<FileReads>(size_t depth)>;

// Null where io_uring is refused.
std::unique_ptr<FileReads> MakeUringReads(size_t depth);
// Each is done when it is waited for.
std::unique_ptr<FileReads> MakePreads();
// The first if possible, else the second.
std::unique_ptr<FileReads> MakeFileReads(size_t depth);

}  // namespace switchyard::worker
