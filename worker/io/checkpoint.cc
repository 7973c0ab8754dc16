#include "worker/io/checkpoint.h"

#include <filesystem>
#include <map>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/json.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kMaxConfigBytes = 16 << 20;
constexpr uint64_t kMaxIndexBytes = 100'000'000;
constexpr size_t kMaxShards = 4096;

absl::Status Invalid(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

// shard -> names of its tensors, as the index says.
absl::StatusOr<std::map<std::string, std::vector<std::string>>> ReadWeightMap(
    const nlohmann::json& index, const std::string& path) {
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return Invalid(path, "has no \"weight_map\" object");
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return Invalid(path, absl::StrCat("tensor ", QuotedName(tensor),
                                        " does not name a file in this directory"));
    }
    shards[shard.get<std::string>()].push_back(tensor);
  }
  if (shards.empty()) return Invalid(path, "names no tensor");
  if (shards.size() > kMaxShards) {
    return Invalid(path, absl::StrCat(shards.size(), " shards, at most ", kMaxShards));
  }
  return shards;
}

// One shard of several that are there: a download that was cut off. Without any it is a checkpoint
// whose weights are still to be had.
absl::Status MissingShard(const std::string& path, const std::string& index_path,
                          const std::map<std::string, std::vector<std::string>>& shards) {
  const std::filesystem::path dir = std::filesystem::path(path).parent_path();
  for (const auto& [shard, names] : shards) {
    std::error_code error;
    const bool exists = std::filesystem::exists(dir / shard, error);
    if (error) return absl::ErrnoToStatus(error.value(), (dir / shard).string());
    if (exists) {
      return Invalid(path, absl::StrCat("is missing, but ", index_path,
                                        " names it: the download is not complete"));
    }
  }
  return absl::NotFoundError(
      absl::StrCat(path, ": is missing, as is every file that ", index_path, " names"));
}

// Package stores and layers of containers give all files one time: two checkpoints of one shape are
// told apart by their inodes.
std::string Identity(const std::string& config, const std::vector<SafetensorsFile>& files) {
  std::string text = absl::StrCat(config.size(), ":", config);
  for (const SafetensorsFile& file : files) {
    absl::StrAppend(&text, "|", std::filesystem::path(file.path()).filename().string(), ":",
                    file.file_bytes(), ":", file.modified_ns(), ":", file.inode());
  }
  return text;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& dir) {
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  ASSIGN_OR_RETURN(const std::string text, checkpoint.ReadConfig());
  RETURN_IF_ERROR(checkpoint.OpenFiles());
  checkpoint.identity_ = Identity(text, checkpoint.files_);
  return checkpoint;
}

absl::StatusOr<Checkpoint> Checkpoint::OpenConfig(const std::string& dir) {
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  RETURN_IF_ERROR(checkpoint.ReadConfig().status());
  return checkpoint;
}

absl::StatusOr<std::string> Checkpoint::ReadConfig() {
  const std::string config_path = absl::StrCat(dir_, "/config.json");
  ASSIGN_OR_RETURN(std::string text, ReadFile(config_path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(nlohmann::json config, ParseJson(text, config_path, kMaxConfigBytes));
  if (!config.is_object()) return Invalid(config_path, "not an object");

  const std::string generation_path = absl::StrCat(dir_, "/generation_config.json");
  absl::StatusOr<nlohmann::json> generation = ReadJsonFile(generation_path, kMaxConfigBytes);
  if (generation.ok()) {
    ASSIGN_OR_RETURN(generation_, ParseGenerationConfig(*generation, generation_path));
  } else if (!absl::IsNotFound(generation.status())) {
    return generation.status();
  }
  RETURN_IF_ERROR(ReadSpecialIds(config, config_path, generation_));
  const auto text_config = config.find("text_config");
  if (text_config != config.end() && text_config->is_object()) {
    RETURN_IF_ERROR(ReadSpecialIds(*text_config, config_path, generation_));
  }
  config_ = std::make_shared<const nlohmann::json>(std::move(config));
  return text;
}

absl::Status Checkpoint::OpenFiles() {
  const std::string index_path = absl::StrCat(dir_, "/model.safetensors.index.json");
  const std::string single_path = absl::StrCat(dir_, "/model.safetensors");
  absl::StatusOr<SafetensorsFile> single = SafetensorsFile::Open(single_path);
  if (single.ok()) return AddFile(*std::move(single));
  if (!absl::IsNotFound(single.status())) return single.status();
  absl::StatusOr<nlohmann::json> index = ReadJsonFile(index_path, kMaxIndexBytes);
  if (absl::IsNotFound(index.status())) {
    return absl::NotFoundError(
        absl::StrCat(dir_, ": neither model.safetensors nor model.safetensors.index.json"));
  }
  RETURN_IF_ERROR(index.status());
  return OpenShards(*index, index_path);
}

absl::Status Checkpoint::OpenShards(const nlohmann::json& index, const std::string& index_path) {
  ASSIGN_OR_RETURN(const auto shards, ReadWeightMap(index, index_path));
  for (const auto& [shard, names] : shards) {
    const std::string path = absl::StrCat(dir_, "/", shard);
    absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(path);
    if (absl::IsNotFound(file.status())) return MissingShard(path, index_path, shards);
    RETURN_IF_ERROR(file.status());
    RETURN_IF_ERROR(AddFile(*std::move(file)));
    const SafetensorsFile& added = files_.back();
    for (const std::string& name : names) {
      const auto place = places_.find(name);
      if (place == places_.end() || place->second.file != files_.size() - 1) {
        return Invalid(added.path(), absl::StrCat("tensor ", QuotedName(name), " is missing, but ",
                                                  index_path, " says that it is here"));
      }
    }
    if (names.size() == added.tensors().size()) continue;
    for (const TensorInfo& tensor : added.tensors()) {
      const auto said = index["weight_map"].find(tensor.name);
      if (said == index["weight_map"].end()) {
        return Invalid(added.path(),
                       absl::StrCat("tensor ", QuotedName(tensor.name), " is not in ", index_path));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddFile(SafetensorsFile file) {
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const TensorInfo& tensor = file.tensors()[i];
    const auto [place, added] = places_.emplace(tensor.name, TensorPlace{files_.size(), i});
    if (!added) {
      return Invalid(file.path(), absl::StrCat("tensor ", QuotedName(tensor.name), " is also in ",
                                               files_[place->second.file].path()));
    }
    tensor_bytes_ += tensor.bytes;  // bounded by the files' real sizes
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

const TensorInfo* Checkpoint::Find(const std::string& name) const {
  const auto place = places_.find(name);
  if (place == places_.end()) return nullptr;
  return &files_[place->second.file].tensors()[place->second.tensor];
}

absl::Status Checkpoint::Read(const std::string& name, uint64_t offset,
                              std::span<std::byte> out) const {
  const auto place = places_.find(name);
  if (place == places_.end()) {
    return absl::NotFoundError(absl::StrCat(dir_, ": no tensor ", QuotedName(name)));
  }
  const SafetensorsFile& file = files_[place->second.file];
  const TensorInfo& tensor = file.tensors()[place->second.tensor];
  const std::optional<uint64_t> end = CheckedAdd(offset, out.size());
  if (!end || *end > tensor.bytes) {
    return absl::OutOfRangeError(absl::StrCat(file.path(), ": tensor ", QuotedName(name), " has ",
                                              tensor.bytes, " bytes; asked for ", out.size(),
                                              " at ", offset));
  }
  return file.Read(tensor.offset + offset, out);
}

}  // namespace switchyard::worker
