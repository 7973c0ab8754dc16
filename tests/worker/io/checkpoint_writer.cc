#include "tests/worker/io/checkpoint_writer.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>

#include <nlohmann/json.hpp>

#include "common/check.h"
#include "worker/io/safetensors.h"

namespace switchyard::worker {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "switchyard-XXXXXX").string();
  SY_CHECK(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  SY_CHECK(out.good());
}

void WriteRawSafetensors(const std::string& path, const std::string& header,
                         const std::string& data) {
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
  WriteText(path, length + header + data);
}

void WriteSafetensors(const std::string& path, const std::vector<WrittenTensor>& tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const WrittenTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.data.size()}}};
    data += tensor.data;
  }
  WriteRawSafetensors(path, header.dump(), data);
}

std::vector<WrittenTensor> ReadTensors(const std::string& path) {
  const auto file = SafetensorsFile::Open(path);
  SY_CHECK(file.ok());
  std::vector<WrittenTensor> tensors;
  for (const TensorInfo& info : file->tensors()) {
    WrittenTensor tensor{info.name, TensorTypeName(info.type), info.shape,
                         std::string(info.bytes, '\0')};
    SY_CHECK(file->Read(info.offset, std::as_writable_bytes(std::span(tensor.data))).ok());
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::string FloatBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::string Bf16Bytes(const std::vector<float>& values) {
  const std::string wide = FloatBytes(values);
  std::string bytes;
  for (size_t i = 0; i < values.size(); ++i) bytes += wide.substr(4 * i + 2, 2);
  return bytes;
}

}  // namespace switchyard::worker
