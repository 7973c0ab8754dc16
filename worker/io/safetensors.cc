#include "worker/io/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

uint64_t LittleEndian(const unsigned char (&bytes)[kLengthBytes]) {
  uint64_t value = 0;
  for (size_t i = kLengthBytes; i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile file;
  file.path_ = path;
  file.fd_.Reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.fd_.valid()) return ErrnoStatus(path.c_str());
  struct stat st;
  if (::fstat(file.fd_.get(), &st) != 0) return ErrnoStatus(path.c_str());
  if (!S_ISREG(st.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  file.file_bytes_ = static_cast<uint64_t>(st.st_size);
  file.inode_ = st.st_ino;
  file.modified_ns_ = st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec;
  if (file.file_bytes_ < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", file.file_bytes_, " bytes are too few for a safetensors file"));
  }
  unsigned char length[kLengthBytes];
  RETURN_IF_ERROR(file.Read(0, std::as_writable_bytes(std::span(length))));
  const uint64_t header_bytes = LittleEndian(length);
  const uint64_t bound = std::min(kMaxHeaderBytes, file.file_bytes_ - kLengthBytes);
  if (header_bytes > bound) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": header of ", header_bytes,
                                                   " bytes, at most ", bound, ": truncated?"));
  }
  std::string header(header_bytes, '\0');
  RETURN_IF_ERROR(file.Read(kLengthBytes, std::as_writable_bytes(std::span(header))));
  const uint64_t data_begin = kLengthBytes + header_bytes;
  ASSIGN_OR_RETURN(file.tensors_,
                   ParseSafetensorsHeader(header, path, data_begin, file.file_bytes_ - data_begin));
  return file;
}

absl::Status SafetensorsFile::Read(uint64_t offset, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        ::pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(path_.c_str());
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(path_, ": ends at byte ", offset + done, ", but had ",
                                              file_bytes_, " when it was opened"));
    }
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace switchyard::worker
