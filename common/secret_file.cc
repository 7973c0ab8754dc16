#include "common/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"

namespace switchyard {
namespace {

constexpr size_t kLeastToken = 16;
constexpr size_t kMostToken = 4096;

absl::Status CheckMode(const std::string& path, int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return ErrnoStatus(path.c_str());
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  if ((info.st_mode & 07) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": every user of this machine can open it; chmod o-rwx it"));
}

absl::StatusOr<std::string> ReadAll(const std::string& path, int fd) {
  std::string text;
  char buffer[4096];
  while (text.size() <= kMostSecretBytes) {
    const ssize_t got = ::read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(path.c_str());
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
  return absl::InvalidArgumentError(absl::StrCat(path, ": more than 1 MiB"));
}

}  // namespace

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(path.c_str());
  RETURN_IF_ERROR(CheckMode(path, fd.get()));
  return ReadAll(path, fd.get());
}

absl::StatusOr<std::string> ReadTokenFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSecretFile(path));
  const std::string token(absl::StripAsciiWhitespace(text));
  const bool printable = std::all_of(token.begin(), token.end(), absl::ascii_isgraph);
  if (printable && token.size() >= kLeastToken && token.size() <= kMostToken) return token;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": a token is one line of ", kLeastToken, " to ", kMostToken,
                   " printable ASCII characters without blanks; `openssl rand -hex 32` makes one"));
}

bool SameSecret(const std::string& given, const std::string& secret) {
  volatile unsigned char differences = given.size() != secret.size() || secret.empty();
  for (size_t i = 0; i < given.size(); ++i) {
    const char other = secret.empty() ? '\0' : secret[i % secret.size()];
    differences = differences | static_cast<unsigned char>(given[i] ^ other);
  }
  return differences == 0;
}

}  // namespace switchyard
