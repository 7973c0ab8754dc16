#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"

namespace switchyard::worker::tokenizer {

// A place in an untrusted JSON document, with the path that error messages name it by. Every error
// is INVALID_ARGUMENT. Points into the document.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string path)
      : value_(&value), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& path() const { return path_; }

  bool Has(const char* key) const;  // is an object that has the key, and not null under it
  absl::StatusOr<JsonNode> Get(const char* key) const;
  absl::StatusOr<std::vector<JsonNode>> GetArray(const char* key) const;
  absl::StatusOr<std::string> GetString(const char* key) const;
  absl::StatusOr<bool> GetBool(const char* key) const;
  absl::StatusOr<bool> GetBoolOr(const char* key, bool otherwise) const;
  absl::StatusOr<int32_t> GetInt(const char* key, int64_t low, int64_t high) const;

  absl::StatusOr<std::string> AsString() const;
  absl::StatusOr<int32_t> AsInt(int64_t low, int64_t high) const;
  absl::StatusOr<std::vector<JsonNode>> AsArray() const;
  absl::Status MustBeObject() const;

  // path + " " + what.
  absl::Status Wrong(const std::string& what) const;

 private:
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace switchyard::worker::tokenizer
