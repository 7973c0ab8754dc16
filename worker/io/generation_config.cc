#include "worker/io/generation_config.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

constexpr size_t kMaxEosIds = 256;

bool IsId(const nlohmann::json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= INT32_MAX;
}

absl::Status Invalid(const std::string& name, const char* key, const nlohmann::json& value,
                     const std::string& wanted) {
  return absl::InvalidArgumentError(absl::StrCat(
      name, ": \"", key, "\" is ", value.dump(-1, ' ', true).substr(0, 100), ", must be ", wanted));
}

absl::Status ReadNumber(const nlohmann::json& json, const std::string& name, const char* key,
                        double low, double high, float& out) {
  const auto value = json.find(key);
  if (value == json.end() || value->is_null()) return absl::OkStatus();
  if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high)) {
    return Invalid(name, key, *value, absl::StrCat("a number from ", low, " to ", high));
  }
  out = value->get<float>();
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadSpecialIds(const nlohmann::json& json, const std::string& name,
                            GenerationConfig& config) {
  const auto eos = json.find("eos_token_id");
  if (config.eos_ids.empty() && eos != json.end() && !eos->is_null()) {
    const nlohmann::json list = eos->is_array() ? *eos : nlohmann::json::array({*eos});
    if (list.size() > kMaxEosIds) return Invalid(name, "eos_token_id", *eos, "at most 256 ids");
    for (const nlohmann::json& id : list) {
      if (!IsId(id)) return Invalid(name, "eos_token_id", *eos, "a token id or a list of them");
      config.eos_ids.push_back(id.get<int32_t>());
    }
  }
  const auto bos = json.find("bos_token_id");
  if (config.bos_id < 0 && bos != json.end() && !bos->is_null()) {
    if (!IsId(*bos)) return Invalid(name, "bos_token_id", *bos, "a token id");
    config.bos_id = bos->get<int32_t>();
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerationConfig> ParseGenerationConfig(const nlohmann::json& json,
                                                       const std::string& name) {
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(name, ": not an object"));
  GenerationConfig config;
  RETURN_IF_ERROR(ReadSpecialIds(json, name, config));
  RETURN_IF_ERROR(ReadNumber(json, name, "temperature", 0, 100, config.temperature));
  RETURN_IF_ERROR(ReadNumber(json, name, "top_p", 1e-6, 1, config.top_p));
  RETURN_IF_ERROR(ReadNumber(json, name, "min_p", 0, 1, config.min_p));
  RETURN_IF_ERROR(
      ReadNumber(json, name, "repetition_penalty", 0.01, 100, config.repetition_penalty));
  const auto top_k = json.find("top_k");
  if (top_k != json.end() && !top_k->is_null()) {
    if (!IsId(*top_k)) return Invalid(name, "top_k", *top_k, "a count");
    config.top_k = top_k->get<int32_t>();
  }
  const auto do_sample = json.find("do_sample");
  if (do_sample != json.end() && !do_sample->is_null()) {
    if (!do_sample->is_boolean()) return Invalid(name, "do_sample", *do_sample, "true or false");
    if (!do_sample->get<bool>()) config.temperature = 0;
  }
  return config;
}

}  // namespace switchyard::worker
