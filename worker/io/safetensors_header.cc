#include <algorithm>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/checked.h"
#include "common/json.h"
#include "common/status_macros.h"
#include "common/utf8.h"
#include "worker/io/safetensors.h"

namespace switchyard::worker {
namespace {

constexpr size_t kMaxRank = 16;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own bound

absl::Status Invalid(const std::string& where, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", what));
}

bool IsCount(const nlohmann::json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

absl::Status ReadShape(const nlohmann::json& entry, const std::string& where, TensorInfo& tensor,
                       uint64_t& bytes) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array()) return Invalid(where, "has no \"shape\" array");
  if (shape->size() > kMaxRank) {
    return Invalid(where, absl::StrCat(shape->size(), " dimensions, at most ", kMaxRank));
  }
  uint64_t bits = static_cast<uint64_t>(TensorTypeBits(tensor.type));
  for (const nlohmann::json& dim : *shape) {
    if (!IsCount(dim)) {
      return Invalid(where, absl::StrCat("dimension ", dim.dump(), " is not a size"));
    }
    const std::optional<uint64_t> product = CheckedMul(bits, dim.get<uint64_t>());
    if (!product) return Invalid(where, absl::StrCat("shape ", shape->dump(), " overflows"));
    bits = *product;
    tensor.shape.push_back(dim.get<int64_t>());
  }
  if (bits % 8 != 0)
    return Invalid(where, absl::StrCat("shape ", shape->dump(), " ends in a byte"));
  bytes = bits / 8;
  return absl::OkStatus();
}

// Offsets in the header count from the end of the header; `tensor.offset` counts from the file's
// start.
absl::Status ReadOffsets(const nlohmann::json& entry, const std::string& where, uint64_t data_begin,
                         uint64_t data_bytes, TensorInfo& tensor) {
  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
      !IsCount((*offsets)[0]) || !IsCount((*offsets)[1])) {
    return Invalid(where, "has no \"data_offsets\" of two sizes");
  }
  const uint64_t begin = (*offsets)[0].get<uint64_t>();
  const uint64_t end = (*offsets)[1].get<uint64_t>();
  if (begin > end)
    return Invalid(where, absl::StrCat("ends at ", end, " before it begins at ", begin));
  if (end > data_bytes) {
    return Invalid(where, absl::StrCat("ends at byte ", end, " of the data, but the file has only ",
                                       data_bytes, ": truncated?"));
  }
  tensor.offset = data_begin + begin;
  tensor.bytes = end - begin;
  return absl::OkStatus();
}

absl::StatusOr<TensorInfo> ReadEntry(const std::string& name, const nlohmann::json& entry,
                                     const std::string& file, uint64_t data_begin,
                                     uint64_t data_bytes) {
  const std::string where = absl::StrCat(file, ": tensor ", QuotedName(name));
  if (!entry.is_object()) return Invalid(where, "its entry is not an object");
  TensorInfo tensor;
  tensor.name = name;
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) return Invalid(where, "has no \"dtype\"");
  const std::optional<TensorType> type = TensorTypeOf(dtype->get_ref<const std::string&>());
  if (!type) return Invalid(where, absl::StrCat("unknown dtype ", QuotedName(*dtype)));
  tensor.type = *type;
  uint64_t bytes = 0;
  RETURN_IF_ERROR(ReadShape(entry, where, tensor, bytes));
  RETURN_IF_ERROR(ReadOffsets(entry, where, data_begin, data_bytes, tensor));
  if (tensor.bytes != bytes) {
    return Invalid(where,
                   absl::StrCat(TensorTypeName(tensor.type), " ", ShapeText(tensor.shape), " is ",
                                bytes, " bytes, but its offsets span ", tensor.bytes));
  }
  return tensor;
}

// The format wants every byte of the data to belong to exactly one tensor.
absl::Status CheckCoverage(const std::vector<TensorInfo>& tensors, const std::string& file,
                           uint64_t data_begin, uint64_t data_bytes) {
  uint64_t at = data_begin;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset != at) {
      return Invalid(
          absl::StrCat(file, ": tensor ", QuotedName(tensor.name)),
          tensor.offset < at
              ? absl::StrCat("overlaps the ", at - tensor.offset, " bytes before it")
              : absl::StrCat("leaves a hole of ", tensor.offset - at, " bytes before it"));
    }
    at += tensor.bytes;
  }
  if (at != data_begin + data_bytes) {
    return Invalid(file, absl::StrCat(data_begin + data_bytes - at,
                                      " bytes after the last tensor belong to none"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string QuotedName(const std::string& name) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(ValidUtf8(name, 200)), "\"");
}

absl::StatusOr<std::vector<TensorInfo>> ParseSafetensorsHeader(const std::string& json,
                                                               const std::string& file,
                                                               uint64_t data_begin,
                                                               uint64_t data_bytes) {
  if (json.empty() || json[0] != '{') return Invalid(file, "not a safetensors header");
  ASSIGN_OR_RETURN(const nlohmann::json header, ParseJson(json, file, kMaxHeaderBytes));
  if (!header.is_object()) return Invalid(file, "the header is not an object");
  std::vector<TensorInfo> tensors;
  tensors.reserve(header.size());
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    ASSIGN_OR_RETURN(TensorInfo tensor, ReadEntry(name, entry, file, data_begin, data_bytes));
    tensors.push_back(std::move(tensor));
  }
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  RETURN_IF_ERROR(CheckCoverage(tensors, file, data_begin, data_bytes));
  return tensors;
}

}  // namespace switchyard::worker
