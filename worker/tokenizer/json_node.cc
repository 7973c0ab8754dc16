#include "worker/tokenizer/json_node.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::worker::tokenizer {
namespace {

// A value for a message: short, whatever it holds.
std::string Shown(const nlohmann::json& value) {
  if (value.is_structured()) return value.type_name();
  std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = absl::StrCat(text.substr(0, 60), "...");
  return text;
}

}  // namespace

absl::Status JsonNode::Wrong(const std::string& what) const {
  return absl::InvalidArgumentError(absl::StrCat(path_, " ", what));
}

bool JsonNode::Has(const char* key) const {
  if (!value_->is_object()) return false;
  auto it = value_->find(key);
  return it != value_->end() && !it->is_null();
}

absl::Status JsonNode::MustBeObject() const {
  if (value_->is_object()) return absl::OkStatus();
  return Wrong(absl::StrCat("must be an object and is ", Shown(*value_)));
}

absl::StatusOr<JsonNode> JsonNode::Get(const char* key) const {
  RETURN_IF_ERROR(MustBeObject());
  auto it = value_->find(key);
  std::string path = path_.empty() ? std::string(key) : absl::StrCat(path_, ".", key);
  if (it == value_->end()) return absl::InvalidArgumentError(absl::StrCat(path, " is missing"));
  return JsonNode(*it, std::move(path));
}

absl::StatusOr<std::vector<JsonNode>> JsonNode::AsArray() const {
  if (!value_->is_array()) return Wrong(absl::StrCat("must be a list and is ", Shown(*value_)));
  std::vector<JsonNode> nodes;
  nodes.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) {
    nodes.emplace_back((*value_)[i], absl::StrCat(path_, "[", i, "]"));
  }
  return nodes;
}

absl::StatusOr<std::string> JsonNode::AsString() const {
  const auto* text = value_->get_ptr<const std::string*>();
  if (text == nullptr) return Wrong(absl::StrCat("must be a string and is ", Shown(*value_)));
  return *text;
}

absl::StatusOr<int32_t> JsonNode::AsInt(int64_t low, int64_t high) const {
  // An unsigned number is also an integer; one beyond int64 would not survive the conversion.
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<uint64_t>() <= static_cast<uint64_t>(high)
                        : value_->is_number_integer() && value_->get<int64_t>() <= high;
  if (!fits || value_->get<int64_t>() < low) {
    return Wrong(
        absl::StrCat("must be a whole number in [", low, ", ", high, "] and is ", Shown(*value_)));
  }
  return static_cast<int32_t>(value_->get<int64_t>());
}

absl::StatusOr<std::vector<JsonNode>> JsonNode::GetArray(const char* key) const {
  ASSIGN_OR_RETURN(JsonNode node, Get(key));
  return node.AsArray();
}

absl::StatusOr<std::string> JsonNode::GetString(const char* key) const {
  ASSIGN_OR_RETURN(JsonNode node, Get(key));
  return node.AsString();
}

absl::StatusOr<bool> JsonNode::GetBool(const char* key) const {
  ASSIGN_OR_RETURN(JsonNode node, Get(key));
  const auto* flag = node.value().get_ptr<const bool*>();
  if (flag == nullptr) {
    return node.Wrong(absl::StrCat("must be true or false and is ", Shown(node.value())));
  }
  return *flag;
}

absl::StatusOr<bool> JsonNode::GetBoolOr(const char* key, bool otherwise) const {
  RETURN_IF_ERROR(MustBeObject());
  if (!Has(key)) return otherwise;
  return GetBool(key);
}

absl::StatusOr<int32_t> JsonNode::GetInt(const char* key, int64_t low, int64_t high) const {
  ASSIGN_OR_RETURN(JsonNode node, Get(key));
  return node.AsInt(low, high);
}

}  // namespace switchyard::worker::tokenizer
