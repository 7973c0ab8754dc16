#include "bench/random_checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kPiece = 4 << 20;  // bytes that one thread makes and writes at a time
constexpr uint16_t kOne = 0x3f80;    // 1.0 as bf16

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
  bool ones = false;  // norms
  int64_t bytes = 0;
  int64_t offset = 0;  // in its shard's data
};

struct Shard {
  std::vector<Tensor> tensors;
  int64_t bytes = 0;
};

std::vector<Tensor> TensorsOf(const ModelShape& s) {
  std::vector<Tensor> tensors;
  auto add = [&](std::string name, std::vector<int64_t> shape, bool ones = false) {
    int64_t bytes = 2;
    for (int64_t n : shape) bytes *= n;
    tensors.push_back({std::move(name), std::move(shape), ones, bytes, 0});
  };
  const int64_t q = s.q_heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  add("model.embed_tokens.weight", {s.vocabulary, s.hidden});
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    add(layer + "input_layernorm.weight", {s.hidden}, true);
    add(layer + "self_attn.q_proj.weight", {q, s.hidden});
    add(layer + "self_attn.k_proj.weight", {kv, s.hidden});
    add(layer + "self_attn.v_proj.weight", {kv, s.hidden});
    add(layer + "self_attn.o_proj.weight", {s.hidden, q});
    if (s.model_type == "qwen3") {
      add(layer + "self_attn.q_norm.weight", {s.head_dim}, true);
      add(layer + "self_attn.k_norm.weight", {s.head_dim}, true);
    }
    add(layer + "post_attention_layernorm.weight", {s.hidden}, true);
    add(layer + "mlp.gate_proj.weight", {s.intermediate, s.hidden});
    add(layer + "mlp.up_proj.weight", {s.intermediate, s.hidden});
    add(layer + "mlp.down_proj.weight", {s.hidden, s.intermediate});
  }
  add("model.norm.weight", {s.hidden}, true);
  if (!s.tied_embeddings) add("lm_head.weight", {s.vocabulary, s.hidden});
  return tensors;
}

std::vector<Shard> ShardsOf(const ModelShape& shape, int64_t shard_bytes) {
  std::vector<Shard> shards(1);
  for (Tensor& tensor : TensorsOf(shape)) {
    if (!shards.back().tensors.empty() && shards.back().bytes + tensor.bytes > shard_bytes) {
      shards.emplace_back();
    }
    tensor.offset = shards.back().bytes;
    shards.back().bytes += tensor.bytes;
    shards.back().tensors.push_back(std::move(tensor));
  }
  return shards;
}

nlohmann::json ConfigOf(const ModelShape& s) {
  return {{"model_type", s.model_type},
          {"architectures", {s.model_type == "qwen3" ? "Qwen3ForCausalLM" : "LlamaForCausalLM"}},
          {"hidden_size", s.hidden},
          {"num_hidden_layers", s.layers},
          {"num_attention_heads", s.q_heads},
          {"num_key_value_heads", s.kv_heads},
          {"head_dim", s.head_dim},
          {"intermediate_size", s.intermediate},
          {"vocab_size", s.vocabulary},
          {"max_position_embeddings", s.max_positions},
          {"rope_theta", s.rope_theta},
          {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", s.tied_embeddings},
          {"torch_dtype", "bfloat16"}};
}

// The 256 characters that a byte-level vocabulary writes bytes with, in the order of their bytes.
std::string ByteCharacter(int byte) {
  auto plain = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int character = byte;
  if (!plain(byte)) {
    character = 256;
    for (int b = 0; b < byte; ++b) character += plain(b) ? 0 : 1;
  }
  if (character < 0x80) return std::string(1, static_cast<char>(character));
  return {static_cast<char>(0xc0 | character >> 6), static_cast<char>(0x80 | (character & 0x3f))};
}

nlohmann::json ByteTokenizer() {
  nlohmann::json vocabulary = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) vocabulary[ByteCharacter(byte)] = byte;
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", true},
                                     {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", nlohmann::json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", nlohmann::json::array()}}}};
}

absl::Status WriteJson(const std::string& path, const nlohmann::json& json) {
  std::ofstream file(path, std::ios::trunc);
  file << json.dump(1) << "\n";
  file.close();
  return file ? absl::OkStatus() : ErrnoStatus(path.c_str());
}

// 65,536 bf16 numbers spread as a normal distribution of deviation 0.02, so that one random 16-bit
// number is one weight.
const std::vector<uint16_t>& WeightTable() {
  static const std::vector<uint16_t> table = [] {
    std::vector<uint16_t> made(65536);
    for (size_t i = 0; i < made.size(); i += 2) {
      // Box and Muller, over a grid.
      const double u = (static_cast<double>(i / 256) + 0.5) / 256;
      const double angle = 2 * M_PI * (static_cast<double>(i % 256) + 0.5) / 256;
      const double radius = 0.02 * std::sqrt(-2 * std::log(u));
      const float pair[2] = {static_cast<float>(radius * std::cos(angle)),
                             static_cast<float>(radius * std::sin(angle))};
      for (int j : {0, 1}) {
        made[i + static_cast<size_t>(j)] =
            static_cast<uint16_t>(std::bit_cast<uint32_t>(pair[j]) >> 16);
      }
    }
    return made;
  }();
  return table;
}

// splitmix64: one word of state, any start.
uint64_t NextRandom(uint64_t& state) {
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

void MakeWeights(const Tensor& tensor, uint64_t seed, std::vector<uint16_t>& out) {
  if (tensor.ones) return std::fill(out.begin(), out.end(), kOne);
  const std::vector<uint16_t>& table = WeightTable();
  for (size_t i = 0; i < out.size(); i += 4) {
    const uint64_t random = NextRandom(seed);
    for (size_t j = 0; j < 4 && i + j < out.size(); ++j) {
      out[i + j] = table[random >> 16 * j & 0xffff];
    }
  }
}

absl::Status WriteAll(int fd, const void* data, int64_t bytes, int64_t offset) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = ::pwrite(fd, at, static_cast<size_t>(bytes), offset);
    if (wrote <= 0) return ErrnoStatus("writing weights");
    at += wrote;
    offset += wrote;
    bytes -= wrote;
  }
  return absl::OkStatus();
}

std::string HeaderOf(const Shard& shard) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  for (const Tensor& tensor : shard.tensors) {
    header[tensor.name] = {{"dtype", "BF16"},
                           {"shape", tensor.shape},
                           {"data_offsets", {tensor.offset, tensor.offset + tensor.bytes}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

absl::Status WriteShard(const Shard& shard, const std::string& path, uint64_t seed, int threads) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoStatus(path.c_str());
  const std::string header = HeaderOf(shard);
  const uint64_t length = header.size();
  RETURN_IF_ERROR(WriteAll(fd.get(), &length, 8, 0));
  RETURN_IF_ERROR(WriteAll(fd.get(), header.data(), static_cast<int64_t>(length), 8));
  const int64_t data = 8 + static_cast<int64_t>(length);

  struct Piece {
    const Tensor* tensor;
    int64_t begin, end;
  };
  std::vector<Piece> pieces;
  for (const Tensor& tensor : shard.tensors) {
    for (int64_t at = 0; at < tensor.bytes; at += kPiece) {
      pieces.push_back({&tensor, at, std::min(at + kPiece, tensor.bytes)});
    }
  }
  std::atomic<size_t> next = 0;
  std::vector<absl::Status> results(static_cast<size_t>(threads));
  auto work = [&](absl::Status& result) {
    std::vector<uint16_t> weights;
    for (size_t i; result.ok() && (i = next++) < pieces.size();) {
      const Piece& piece = pieces[i];
      weights.resize(static_cast<size_t>(piece.end - piece.begin) / 2);
      const int64_t offset = data + piece.tensor->offset + piece.begin;
      MakeWeights(*piece.tensor, seed ^ static_cast<uint64_t>(offset) << 8, weights);
      result = WriteAll(fd.get(), weights.data(), piece.end - piece.begin, offset);
    }
  };
  std::vector<std::thread> workers;
  for (absl::Status& result : results) workers.emplace_back(work, std::ref(result));
  for (std::thread& worker : workers) worker.join();
  for (const absl::Status& result : results) RETURN_IF_ERROR(result);
  return absl::OkStatus();
}

}  // namespace

const std::vector<ModelShape>& KnownShapes() {
  static const std::vector<ModelShape> shapes = {
      {.name = "llama-tiny",
       .hidden = 256,
       .layers = 4,
       .q_heads = 8,
       .kv_heads = 2,
       .head_dim = 32,
       .intermediate = 768,
       .vocabulary = 1024,
       .max_positions = 4096,
       .tied_embeddings = true},
      {.name = "llama-1b",
       .hidden = 2048,
       .layers = 16,
       .q_heads = 32,
       .kv_heads = 8,
       .head_dim = 64,
       .intermediate = 8192,
       .vocabulary = 128256,
       .tied_embeddings = true},
      {.name = "llama-3b",
       .hidden = 3072,
       .layers = 28,
       .q_heads = 24,
       .kv_heads = 8,
       .head_dim = 128,
       .intermediate = 8192,
       .vocabulary = 128256,
       .tied_embeddings = true},
      {.name = "llama-8b",
       .hidden = 4096,
       .layers = 32,
       .q_heads = 32,
       .kv_heads = 8,
       .head_dim = 128,
       .intermediate = 14336,
       .vocabulary = 128256},
      {.name = "llama-70b",
       .hidden = 8192,
       .layers = 80,
       .q_heads = 64,
       .kv_heads = 8,
       .head_dim = 128,
       .intermediate = 28672,
       .vocabulary = 128256},
      {.name = "qwen3-0.6b",
       .model_type = "qwen3",
       .hidden = 1024,
       .layers = 28,
       .q_heads = 16,
       .kv_heads = 8,
       .head_dim = 128,
       .intermediate = 3072,
       .vocabulary = 151936,
       .max_positions = 40960,
       .rope_theta = 1000000,
       .tied_embeddings = true},
      {.name = "qwen3-32b",
       .model_type = "qwen3",
       .hidden = 5120,
       .layers = 64,
       .q_heads = 64,
       .kv_heads = 8,
       .head_dim = 128,
       .intermediate = 25600,
       .vocabulary = 151936,
       .max_positions = 40960,
       .rope_theta = 1000000},
  };
  return shapes;
}

int64_t CheckpointBytes(const ModelShape& shape) {
  int64_t bytes = 0;
  for (const Tensor& tensor : TensorsOf(shape)) bytes += tensor.bytes;
  return bytes;
}

absl::Status WriteRandomCheckpoint(const ModelShape& shape, const std::string& dir,
                                   int64_t shard_bytes, uint64_t seed, int threads) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return absl::InternalError(absl::StrCat(dir, ": ", error.message()));
  const std::vector<Shard> shards = ShardsOf(shape, shard_bytes);
  nlohmann::json index = {{"metadata", {{"total_size", CheckpointBytes(shape)}}}};
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                                  i + 1, shards.size());
    for (const Tensor& tensor : shards[i].tensors) index["weight_map"][tensor.name] = name;
    RETURN_IF_ERROR(WriteShard(shards[i], dir + "/" + name, seed + i, threads));
  }
  if (shards.size() > 1) {
    RETURN_IF_ERROR(WriteJson(dir + "/model.safetensors.index.json", index));
  }
  RETURN_IF_ERROR(WriteJson(dir + "/tokenizer.json", ByteTokenizer()));
  return WriteJson(dir + "/config.json", ConfigOf(shape));
}

}  // namespace switchyard::bench
