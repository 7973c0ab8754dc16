#pragma once

// A checkpoint directory in Hugging Face layout: config.json, model.safetensors or its shards with
// model.safetensors.index.json, and generation_config.json if there is one. Opening reads headers
// only.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/io/generation_config.h"
#include "worker/io/safetensors.h"

namespace switchyard::worker {

// Where a tensor lies: tensors()[tensor] of files()[file].
struct TensorPlace {
  size_t file = 0;
  size_t tensor = 0;
};

class Checkpoint {
 public:
  // Every error names the file.
  static absl::StatusOr<Checkpoint> Open(const std::string& dir);
  // The same without weights: neither tensors nor an identity.
  static absl::StatusOr<Checkpoint> OpenConfig(const std::string& dir);

  const std::string& dir() const { return dir_; }
  const nlohmann::json& config() const { return *config_; }
  // From generation_config.json; special ids that it leaves out come from config.json.
  const GenerationConfig& generation() const { return generation_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }

  size_t tensor_count() const { return places_.size(); }
  uint64_t tensor_bytes() const { return tensor_bytes_; }  // of all files together
  const TensorInfo* Find(const std::string& name) const;   // null: no such tensor
  // Bytes [offset, offset + out.size()) of a tensor; from any thread.
  absl::Status Read(const std::string& name, uint64_t offset, std::span<std::byte> out) const;

  // Changes when a file is replaced: names, sizes and times of the files, and the config's text.
  const std::string& identity() const { return identity_; }

 private:
  // Everything but weights; the text of config.json, which is part of the identity.
  absl::StatusOr<std::string> ReadConfig();
  absl::Status OpenFiles();
  absl::Status OpenShards(const nlohmann::json& index, const std::string& index_path);
  absl::Status AddFile(SafetensorsFile file);

  std::string dir_;
  std::shared_ptr<const nlohmann::json> config_;
  GenerationConfig generation_;
  std::vector<SafetensorsFile> files_;
  std::unordered_map<std::string, TensorPlace> places_;
  uint64_t tensor_bytes_ = 0;
  std::string identity_;
};

}  // namespace switchyard::worker
