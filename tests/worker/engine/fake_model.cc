#include "tests/worker/engine/fake_model.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "tests/worker/engine/fake_ops.h"

namespace switchyard::worker {
namespace {

constexpr int32_t kWidth = 4;
constexpr int32_t kVocabulary = 61;
constexpr uint64_t kChunk = 4096;

void AddTensor(ImageLayout& image, Role role, int32_t layer, int64_t n, int64_t k) {
  ImageTensor tensor;
  tensor.role = role;
  tensor.layer = layer;
  tensor.dtype = kernels::DType::kF32;
  tensor.n = n;
  tensor.k = k;
  tensor.offset = image.bytes;
  tensor.bytes = static_cast<uint64_t>(n * k) * sizeof(float);
  image.bytes = (image.bytes + tensor.bytes + 255) / 256 * 256;
  image.tensors.push_back(tensor);
}

uint32_t WordAt(const FakeModel& model, Role role, int32_t layer) {
  for (const ImageTensor& tensor : model.image.tensors) {
    if (tensor.role != role || tensor.layer != layer) continue;
    uint32_t word;
    std::memcpy(&word, model.master.data() + tensor.offset, sizeof(word));
    return word;
  }
  return 0;
}

}  // namespace

FakeModel MakeFakeModel(const std::vector<int32_t>& windows) {
  FakeModel model;
  Architecture& arch = model.arch;
  arch.family = "fake";
  arch.hidden = arch.intermediate = arch.head_dim = kWidth;
  arch.q_heads = arch.kv_heads = 1;
  arch.vocabulary = kVocabulary;
  arch.max_positions = 1 << 20;
  arch.ropes.emplace_back();
  ImageLayout& image = model.image;
  AddTensor(image, Role::kEmbedding, -1, kVocabulary, kWidth);
  for (size_t i = 0; i < windows.size(); ++i) {
    const auto layer = static_cast<int32_t>(i);
    arch.layers.push_back({windows[i], 0, false});
    AddTensor(image, Role::kAttentionNorm, layer, 1, kWidth);
    AddTensor(image, Role::kQkv, layer, 3 * kWidth, kWidth);
    AddTensor(image, Role::kO, layer, kWidth, kWidth);
    AddTensor(image, Role::kMlpNorm, layer, 1, kWidth);
    AddTensor(image, Role::kGateUp, layer, 2 * kWidth, kWidth);
    AddTensor(image, Role::kDown, layer, kWidth, kWidth);
    image.layer_end.push_back(image.bytes);
    image.bytes = (image.bytes + kChunk - 1) / kChunk * kChunk;
  }
  AddTensor(image, Role::kFinalNorm, -1, 1, kWidth);
  AddTensor(image, Role::kHead, -1, kVocabulary, kWidth);
  image.bytes = (image.bytes + kChunk - 1) / kChunk * kChunk;
  image.chunk_bytes = kChunk;
  image.chunks = static_cast<uint32_t>(image.bytes / kChunk);
  model.master.resize(image.bytes);
  for (size_t i = 0; i + 4 <= image.bytes; i += 4) {
    const uint32_t word = Mix(17, static_cast<uint32_t>(i));
    std::memcpy(model.master.data() + i, &word, sizeof(word));
  }
  return model;
}

FakeAnswer FakeAnswerOf(const FakeModel& model, const SequenceRequest& request) {
  const size_t layers = model.arch.layers.size();
  std::vector<std::vector<uint32_t>> keys(layers);
  std::vector<int32_t> tokens = request.prompt;
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  FakeAnswer answer;
  for (int32_t p = 0; p < prompt + request.max_tokens - 1; ++p) {
    uint32_t h = Mix(WordAt(model, Role::kEmbedding, -1), tokens[p]);
    for (size_t i = 0; i < layers; ++i) {
      const uint32_t norm = WordAt(model, Role::kAttentionNorm, static_cast<int32_t>(i));
      uint32_t q = Mix(Mix(h, norm), p);
      keys[i].push_back(q);
      const int32_t window = model.arch.layers[i].window;
      for (int32_t j = window == 0 ? 0 : std::max(0, p - window + 1); j <= p; ++j) {
        q = Mix(q, keys[i][j]);
      }
      h = Mix(h, q);  // the projection onto the residual
      h = Mix(h, h);  // the MLP, whose input is the residual itself
    }
    const std::vector<float> logits =
        FakeLogits(h, WordAt(model, Role::kHead, -1), model.arch.vocabulary);
    if (p + 1 < prompt) {
      answer.prompt_logprobs.push_back(
          FakeLogprob(logits.data(), model.arch.vocabulary, tokens[p + 1]));
      continue;
    }
    kernels::SamplingRow row;
    row.position = p;
    row.temperature = request.sampling.temperature;
    row.seed = request.sampling.seed;
    const int32_t id = FakeDraw(logits.data(), model.arch.vocabulary, row);
    tokens.push_back(id);
    answer.tokens.push_back(id);
    answer.logprobs.push_back(FakeLogprob(logits.data(), model.arch.vocabulary, id));
    const auto& stops = request.stop_ids;
    if (std::find(stops.begin(), stops.end(), id) != stops.end()) break;
  }
  return answer;
}

}  // namespace switchyard::worker
