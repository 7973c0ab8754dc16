#include "worker/model/quantization_config.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/status_macros.h"
#include "worker/io/safetensors.h"
#include "worker/model/config_reader.h"

namespace switchyard::worker {
namespace {

constexpr int32_t kMaxGroup = 1 << 20;
constexpr size_t kMaxKept = 8192;

// `*` stands for any characters. Linear but for the pattern's stars, so that a hostile one costs
// little.
bool Matches(absl::string_view pattern, absl::string_view text) {
  size_t p = 0, t = 0, star = absl::string_view::npos, retry = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      t = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// A regular expression as a glob, if it is no more than that; else empty.
std::string GlobOf(const std::string& expression) {
  std::string glob = absl::StrReplaceAll(expression, {{".*", "*"}, {"\\.", "\x01"}});
  if (!glob.empty() && glob.front() == '^') glob.erase(0, 1);
  const bool ends = !glob.empty() && glob.back() == '$';
  if (ends) glob.pop_back();
  if (glob.find_first_of("\\[](){}|+?^$.") != std::string::npos) return "";
  std::replace(glob.begin(), glob.end(), '\x01', '.');
  return ends ? glob : glob + "*";  // re.match asks for the beginning only
}

// An entry of the file as a glob over ".module."; empty: it cannot be one.
std::string KeptGlob(const std::string& entry) {
  if (!absl::StartsWith(entry, "re:")) return absl::StrCat("*.", entry, ".*");
  const std::string glob = GlobOf(entry.substr(3));
  return glob.empty() ? "" : absl::StrCat(".", glob, ".");
}

// -1, as some write it, is the whole row.
int32_t ReadGroup(ConfigReader& config, int32_t fallback) {
  const int32_t group = config.Int("group_size", fallback, -1, kMaxGroup);
  if (group > 0 && group % 32 != 0) {
    config.RefuseUnsupported(
        absl::StrCat("\"group_size\" ", group, " is not supported: multiples of 32 are"));
  }
  return std::max(group, 0);
}

void ReadBits(ConfigReader& config, const char* key, int32_t wanted) {
  const int32_t bits = config.Int(key, wanted, 1, 64);
  if (bits != wanted) {
    config.RefuseUnsupported(
        absl::StrCat("\"", key, "\" ", bits, " is not supported in this format: ", wanted, " is"));
  }
}

void ReadBlocks(ConfigReader& config, const char* key) {
  const std::vector<int32_t> block = config.Ints(key, 1, 1 << 20);
  if (block != std::vector<int32_t>{128, 128}) {
    config.RefuseUnsupported(absl::StrCat("\"", key, "\" other than [128, 128] is not supported"));
  }
}

void ReadFp8(ConfigReader& config, QuantizationConfig& to) {
  to.format = WeightFormat::kFp8;
  if (!config.Has("weight_block_size")) return;
  to.format = WeightFormat::kFp8Blocks;
  ReadBlocks(config, "weight_block_size");
}

void ReadAwq(ConfigReader& config, QuantizationConfig& to) {
  to.format = WeightFormat::kAwq;
  ReadBits(config, "bits", 4);
  to.group = ReadGroup(config, 128);
  const std::string version = absl::AsciiStrToLower(config.String("version", "gemm"));
  if (version != "gemm") {
    config.RefuseUnsupported(
        absl::StrCat("AWQ \"version\" ", QuotedName(version), " is not supported; known: gemm"));
  }
  if (!config.Bool("zero_point", true)) {
    config.RefuseUnsupported("AWQ with \"zero_point\" false is not supported");
  }
}

void ReadGptq(ConfigReader& config, QuantizationConfig& to) {
  to.format = WeightFormat::kGptq;
  ReadBits(config, "bits", 4);
  to.group = ReadGroup(config, 128);
  const std::string format = config.String("checkpoint_format", "gptq");
  if (format != "gptq" && format != "gptq_v2") {
    config.RefuseUnsupported(absl::StrCat("GPTQ \"checkpoint_format\" ", QuotedName(format),
                                          " is not supported; known: gptq, gptq_v2"));
  }
  to.zero_offset = format == "gptq" ? 1 : 0;
}

void ReadCompressedFloat(ConfigReader& weights, QuantizationConfig& to) {
  ReadBits(weights, "num_bits", 8);
  const std::string strategy = weights.String("strategy", "tensor");
  if (strategy == "block") {
    to.format = WeightFormat::kFp8Blocks;
    ReadBlocks(weights, "block_structure");
    return;
  }
  to.format = WeightFormat::kFp8;
  if (strategy != "tensor" && strategy != "channel") {
    weights.RefuseUnsupported(absl::StrCat("\"strategy\" ", QuotedName(strategy),
                                           " of fp8 weights is not supported; known: tensor, "
                                           "channel, block"));
  }
}

void ReadCompressedInteger(ConfigReader& weights, const std::string& format,
                           QuantizationConfig& to) {
  if (format != "pack-quantized") {
    weights.RefuseUnsupported(absl::StrCat("integer weights in the format ", QuotedName(format),
                                           " are not supported; known: pack-quantized"));
  }
  ReadBits(weights, "num_bits", 4);
  to.format = WeightFormat::kPacked;
  to.zeros = !weights.Bool("symmetric", true);
  const std::string strategy = weights.String("strategy", "group");
  if (strategy == "group") {
    to.group = ReadGroup(weights, 128);
  } else if (strategy != "channel") {
    weights.RefuseUnsupported(absl::StrCat("\"strategy\" ", QuotedName(strategy),
                                           " of 4-bit weights is not supported; known: group, "
                                           "channel"));
  }
}

void ReadCompressed(ConfigReader& config, const nlohmann::json& json, QuantizationConfig& to) {
  const std::string format = config.String("format", "dense");
  if (format != "float-quantized" && format != "naive-quantized" && format != "pack-quantized") {
    config.RefuseUnsupported(absl::StrCat("compressed-tensors in the format ", QuotedName(format),
                                          " is not supported; known: float-quantized, "
                                          "naive-quantized, pack-quantized"));
    return;
  }
  const auto groups = json.find("config_groups");
  if (groups == json.end() || !groups->is_object() || groups->size() != 1) {
    config.RefuseUnsupported(
        "\"config_groups\" must have one group: mixed forms are not supported");
    return;
  }
  ConfigReader group = config.Object("config_groups").Object(groups->begin().key().c_str());
  ConfigReader weights = group.Object("weights");
  const std::string type = weights.String("type", "int");
  if (type == "float") {
    ReadCompressedFloat(weights, to);
  } else {
    ReadCompressedInteger(weights, format, to);
  }
}

void ReadKept(ConfigReader& config, QuantizationConfig& to) {
  for (const char* key : {"modules_to_not_convert", "ignore", "ignored_layers"}) {
    for (const std::string& entry : config.Strings(key)) {
      std::string glob = KeptGlob(entry);
      if (!glob.empty()) to.kept.push_back(std::move(glob));
    }
  }
  if (to.kept.size() > kMaxKept) {
    config.Refuse(absl::StrCat(to.kept.size(), " modules are named as kept, at most ", kMaxKept));
  }
}

absl::StatusOr<QuantizationConfig> ReadObject(const nlohmann::json& json, const char* key) {
  const std::string where = absl::StrCat("config.json: ", key);
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, ": not an object"));
  ConfigReader config(json, where);
  QuantizationConfig to;
  const std::string method = config.String("quant_method", "");
  RETURN_IF_ERROR(config.status());
  if (method == "fp8" || method == "fbgemm_fp8") {
    ReadFp8(config, to);
  } else if (method == "awq") {
    ReadAwq(config, to);
  } else if (method == "gptq") {
    ReadGptq(config, to);
  } else if (method == "compressed-tensors") {
    ReadCompressed(config, json, to);
  } else if (method == "mxfp4") {
    to.format = WeightFormat::kMxfp4;
    to.group = 32;
  } else {
    return absl::UnimplementedError(
        absl::StrCat(where, ": the format ", method.empty() ? "without a name" : QuotedName(method),
                     " is not supported; known: fp8, fbgemm_fp8, awq, gptq, compressed-tensors, "
                     "mxfp4"));
  }
  ReadKept(config, to);
  RETURN_IF_ERROR(config.status());
  return to;
}

}  // namespace

const char* WeightFormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kPlain:
      return "plain";
    case WeightFormat::kFp8:
      return "fp8";
    case WeightFormat::kFp8Blocks:
      return "fp8 in blocks";
    case WeightFormat::kAwq:
      return "AWQ";
    case WeightFormat::kGptq:
      return "GPTQ";
    case WeightFormat::kPacked:
      return "pack-quantized";
    case WeightFormat::kMxfp4:
      return "MXFP4";
  }
  return "unknown";
}

bool QuantizationConfig::Keeps(const std::string& module) const {
  const std::string dotted = absl::StrCat(".", module, ".");
  return std::any_of(kept.begin(), kept.end(),
                     [&](const std::string& glob) { return Matches(glob, dotted); });
}

absl::StatusOr<QuantizationConfig> ReadQuantizationConfig(const nlohmann::json& config) {
  const nlohmann::json* found = nullptr;
  const char* found_key = nullptr;
  const auto look = [&](const nlohmann::json& object) {
    for (const char* key : {"quantization_config", "compression_config"}) {
      const auto value = object.find(key);
      if (found != nullptr || value == object.end() || value->is_null()) continue;
      found = &*value;
      found_key = key;
    }
  };
  if (config.is_object()) {
    look(config);
    const auto text = config.find("text_config");
    if (text != config.end() && text->is_object()) look(*text);
  }
  if (found == nullptr) return QuantizationConfig();
  return ReadObject(*found, found_key);
}

}  // namespace switchyard::worker
