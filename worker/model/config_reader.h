#pragma once

// Reads one object of an untrusted config.json. Fields are read plainly, one after the other; the
// first one that is malformed is remembered, and asked for at the end with status(). A field that
// is absent or null takes the fallback.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"

namespace switchyard::worker {

class ConfigReader {
 public:
  // `where` opens every message. The object must outlive the reader.
  ConfigReader(const nlohmann::json& object, std::string where);

  bool Has(const char* key) const;         // there, and not null
  bool IsNull(const char* key) const;      // there, and null
  bool HasEntries(const char* key) const;  // there, neither null nor an empty object

  // Values outside [low, high], and of another type, are errors.
  int32_t Int(const char* key, int32_t fallback, int32_t low, int32_t high);
  double Number(const char* key, double fallback, double low, double high);
  bool Bool(const char* key, bool fallback);
  std::string String(const char* key, const std::string& fallback);
  std::vector<int32_t> Ints(const char* key, int32_t low, int32_t high);  // absent: empty
  std::vector<std::string> Strings(const char* key);                      // absent: empty
  // The object under `key`, or an empty one. Shares this reader's status.
  ConfigReader Object(const char* key);

  // Remembers an error that the caller found: "<where>: <what>".
  void Refuse(const std::string& what);             // INVALID_ARGUMENT
  void RefuseUnsupported(const std::string& what);  // UNIMPLEMENTED
  const absl::Status& status() const { return *status_; }

 private:
  const nlohmann::json* Value(const char* key) const;
  void Malformed(const char* key, const nlohmann::json& value, const std::string& wanted);

  const nlohmann::json* object_;
  std::string where_;
  std::shared_ptr<absl::Status> status_;
};

}  // namespace switchyard::worker
