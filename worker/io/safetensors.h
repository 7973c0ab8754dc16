#pragma once

// One safetensors file: eight bytes of header length, a JSON header, then the tensors' bytes
// without a gap. The file is untrusted: everything is checked against its real size before it is
// used, and it is read with pread, since a mapping would die with SIGBUS when the file shrinks.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "worker/io/tensor_type.h"

namespace switchyard::worker {

struct TensorInfo {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // of the first byte, into the file
  uint64_t bytes = 0;
};

// "[4, 32]"
std::string ShapeText(const std::vector<int64_t>& shape);
// A name from outside, fit for a message: quoted, escaped, cut at 200 characters.
std::string QuotedName(const std::string& name);

// The header's JSON text, where the tensors' bytes start at `data_begin` of a file and are
// `data_bytes` long. Tensors come back by offset. `file` opens every message. Does no I/O.
absl::StatusOr<std::vector<TensorInfo>> ParseSafetensorsHeader(const std::string& json,
                                                               const std::string& file,
                                                               uint64_t data_begin,
                                                               uint64_t data_bytes);

class SafetensorsFile {
 public:
  // Reads and checks the header. NOT_FOUND if there is no such file.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // by offset
  uint64_t file_bytes() const { return file_bytes_; }
  int64_t modified_ns() const { return modified_ns_; }
  uint64_t inode() const { return inode_; }

  // Fills `out` from `offset` of the file; from any thread. DATA_LOSS if the file has become
  // shorter.
  absl::Status Read(uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  UniqueFd fd_;
  uint64_t file_bytes_ = 0;
  int64_t modified_ns_ = 0;
  uint64_t inode_ = 0;
  std::vector<TensorInfo> tensors_;
};

}  // namespace switchyard::worker
