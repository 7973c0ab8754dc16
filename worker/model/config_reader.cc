#include "worker/model/config_reader.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace switchyard::worker {
namespace {

constexpr size_t kMaxList = 65536;

const nlohmann::json& EmptyObject() {
  static const nlohmann::json* empty = new nlohmann::json(nlohmann::json::object());
  return *empty;
}

}  // namespace

ConfigReader::ConfigReader(const nlohmann::json& object, std::string where)
    : object_(&object), where_(std::move(where)), status_(std::make_shared<absl::Status>()) {
  if (!object.is_object()) {
    Refuse("not an object");
    object_ = &EmptyObject();
  }
}

const nlohmann::json* ConfigReader::Value(const char* key) const {
  const auto value = object_->find(key);
  return value == object_->end() || value->is_null() ? nullptr : &*value;
}

bool ConfigReader::Has(const char* key) const { return Value(key) != nullptr; }

bool ConfigReader::IsNull(const char* key) const {
  const auto value = object_->find(key);
  return value != object_->end() && value->is_null();
}

bool ConfigReader::HasEntries(const char* key) const {
  const nlohmann::json* value = Value(key);
  return value != nullptr && !(value->is_object() && value->empty());
}

void ConfigReader::Refuse(const std::string& what) {
  if (status_->ok()) *status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", what));
}

void ConfigReader::RefuseUnsupported(const std::string& what) {
  if (status_->ok()) *status_ = absl::UnimplementedError(absl::StrCat(where_, ": ", what));
}

void ConfigReader::Malformed(const char* key, const nlohmann::json& value,
                             const std::string& wanted) {
  Refuse(absl::StrCat("\"", key, "\" is ", value.dump(-1, ' ', true).substr(0, 100), ", must be ",
                      wanted));
}

int32_t ConfigReader::Int(const char* key, int32_t fallback, int32_t low, int32_t high) {
  const nlohmann::json* value = Value(key);
  if (value == nullptr) return fallback;
  const bool fits = value->is_number_unsigned()
                        ? value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                        : value->is_number_integer();
  if (!fits || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    Malformed(key, *value, absl::StrCat("a whole number from ", low, " to ", high));
    return fallback;
  }
  return value->get<int32_t>();
}

double ConfigReader::Number(const char* key, double fallback, double low, double high) {
  const nlohmann::json* value = Value(key);
  if (value == nullptr) return fallback;
  if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high)) {
    Malformed(key, *value, absl::StrCat("a number from ", low, " to ", high));
    return fallback;
  }
  return value->get<double>();
}

bool ConfigReader::Bool(const char* key, bool fallback) {
  const nlohmann::json* value = Value(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    Malformed(key, *value, "true or false");
    return fallback;
  }
  return value->get<bool>();
}

std::string ConfigReader::String(const char* key, const std::string& fallback) {
  const nlohmann::json* value = Value(key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) {
    Malformed(key, *value, "a string");
    return fallback;
  }
  return value->get<std::string>();
}

std::vector<int32_t> ConfigReader::Ints(const char* key, int32_t low, int32_t high) {
  const nlohmann::json* value = Value(key);
  std::vector<int32_t> list;
  if (value == nullptr) return list;
  const auto fits = [&](const nlohmann::json& entry) {
    return entry.is_number_integer() && entry >= low && entry <= high;
  };
  if (!value->is_array() || value->size() > kMaxList) {
    Malformed(key, *value, "a list of whole numbers");
    return list;
  }
  for (const nlohmann::json& entry : *value) {
    if (!fits(entry)) {
      Malformed(key, *value, absl::StrCat("a list of whole numbers from ", low, " to ", high));
      return {};
    }
    list.push_back(entry.get<int32_t>());
  }
  return list;
}

std::vector<std::string> ConfigReader::Strings(const char* key) {
  const nlohmann::json* value = Value(key);
  std::vector<std::string> list;
  if (value == nullptr) return list;
  if (!value->is_array() || value->size() > kMaxList) {
    Malformed(key, *value, "a list of strings");
    return list;
  }
  for (const nlohmann::json& entry : *value) {
    if (!entry.is_string()) {
      Malformed(key, *value, "a list of strings");
      return {};
    }
    list.push_back(entry.get<std::string>());
  }
  return list;
}

ConfigReader ConfigReader::Object(const char* key) {
  const nlohmann::json* value = Value(key);
  if (value != nullptr && !value->is_object()) Malformed(key, *value, "an object");
  const bool usable = value != nullptr && value->is_object();
  ConfigReader reader(usable ? *value : EmptyObject(), absl::StrCat(where_, ": ", key));
  reader.status_ = status_;
  return reader;
}

}  // namespace switchyard::worker
