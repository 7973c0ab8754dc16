// A safetensors file: header length, header, data.

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/unique_fd.h"
#include "tests/fuzz/target.h"
#include "worker/io/safetensors.h"

namespace switchyard::worker {
namespace {

void CheckTensors(const std::vector<TensorInfo>& tensors, uint64_t begin, uint64_t end) {
  for (const TensorInfo& tensor : tensors) {
    SY_CHECK(tensor.offset == begin && tensor.bytes <= end - begin);
    begin += tensor.bytes;
  }
  SY_CHECK(begin == end);
}

// The parser alone, over more data than a small input could hold.
void ParseHeader(const std::string& json) {
  for (const uint64_t data : {uint64_t{0}, uint64_t{64}, uint64_t{1} << 62}) {
    const auto tensors = ParseSafetensorsHeader(json, "file", 8 + json.size(), data);
    if (tensors.ok()) CheckTensors(*tensors, 8 + json.size(), 8 + json.size() + data);
  }
}

void ReadFile(const uint8_t* data, size_t size) {
  const UniqueFd fd(::memfd_create("model.safetensors", MFD_CLOEXEC));
  SY_CHECK(::write(fd.get(), data, size) == static_cast<ssize_t>(size));
  const auto file = SafetensorsFile::Open(absl::StrCat("/proc/self/fd/", fd.get()));
  if (!file.ok()) return;
  uint64_t header = 0;
  std::memcpy(&header, data, sizeof(header));
  CheckTensors(file->tensors(), 8 + header, size);
  for (const TensorInfo& tensor : file->tensors()) {
    std::vector<std::byte> bytes(tensor.bytes);
    SY_CHECK(file->Read(tensor.offset, bytes).ok());
  }
}

}  // namespace
}  // namespace switchyard::worker

// A header alone begins with its brace, which as a length would be too much.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0 && data[0] == '{') {
    switchyard::worker::ParseHeader(std::string(reinterpret_cast<const char*>(data), size));
  }
  switchyard::worker::ReadFile(data, size);
  return 0;
}
