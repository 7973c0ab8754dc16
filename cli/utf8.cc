#include "cli/utf8.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/utf8.h"

namespace switchyard::cli {
namespace {

// What the supervisor takes of a request. Whatever is longer need not be read to its end, which it
// may not have.
constexpr size_t kMostInput = 16 << 20;

absl::Status InputError() {
  if (errno == EISDIR) {
    return absl::InvalidArgumentError(
        "cannot read standard input: it is a directory, and a file or a pipe is wanted");
  }
  if (errno == EBADF) {
    return absl::InvalidArgumentError(
        "cannot read standard input: it is closed, or open for writing alone");
  }
  return absl::UnknownError(absl::StrCat("cannot read standard input: ", std::strerror(errno)));
}

absl::StatusOr<std::string> ReadInput() {
  std::string all;
  char buffer[1 << 16];
  while (all.size() <= kMostInput) {
    const ssize_t length = ::read(STDIN_FILENO, buffer, sizeof(buffer));
    if (length == 0) return all;
    if (length > 0) {
      all.append(buffer, static_cast<size_t>(length));
    } else if (errno != EINTR) {
      return InputError();
    }
  }
  return absl::ResourceExhaustedError(
      "standard input has more than the 16 MiB that a request may have, send a shorter one");
}

}  // namespace

absl::Status CheckUtf8(const std::string& text, const char* what) {
  const size_t at = FindInvalidUtf8(text);
  if (at == std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " is not valid UTF-8 at byte ", at));
}

absl::StatusOr<std::string> TextOrInput(const std::string& text, const char* what) {
  std::string all = text;
  if (text == "-") {
    ASSIGN_OR_RETURN(all, ReadInput());
  }
  RETURN_IF_ERROR(CheckUtf8(all, what));
  return all;
}

}  // namespace switchyard::cli
