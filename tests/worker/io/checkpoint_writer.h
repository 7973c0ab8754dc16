#pragma once

// Writes checkpoints for tests: good ones, and headers that lie.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::worker {

// A directory of its own, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct WrittenTensor {
  std::string name;
  std::string dtype;  // as the file spells it
  std::vector<int64_t> shape;
  std::string data;
};

void WriteText(const std::string& path, const std::string& text);
// Header, as given, with its length before it, and the data behind it.
void WriteRawSafetensors(const std::string& path, const std::string& header,
                         const std::string& data);
void WriteSafetensors(const std::string& path, const std::vector<WrittenTensor>& tensors);
// All tensors of a file, in order.
std::vector<WrittenTensor> ReadTensors(const std::string& path);

// Little-endian values.
std::string FloatBytes(const std::vector<float>& values);
std::string Bf16Bytes(const std::vector<float>& values);  // truncated

}  // namespace switchyard::worker
