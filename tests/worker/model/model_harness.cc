#include "tests/worker/model/model_harness.h"

#include <algorithm>

#include "common/checked.h"
#include "common/status_macros.h"
#include "worker/model/families.h"

namespace switchyard::worker {
namespace {

constexpr int32_t kLogitRows = 7;  // so that most steps need several tiles
constexpr int32_t kBlockTokens = 16;

// Images and activations want 256-byte alignment.
std::byte* Aligned(std::vector<std::byte>& bytes) {
  return reinterpret_cast<std::byte*>(RoundUp(reinterpret_cast<uint64_t>(bytes.data()), 256));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelHarness>> ModelHarness::Load(const std::string& dir,
                                                                 int32_t slots, int32_t context,
                                                                 int threads) {
  std::unique_ptr<ModelHarness> model(new ModelHarness());
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(dir));
  ASSIGN_OR_RETURN(model->arch_, ReadArchitecture(checkpoint.config()));
  ASSIGN_OR_RETURN(model->layout_, PlanImage(model->arch_, checkpoint));
  model->image_.resize(model->layout_.bytes + 256);
  std::byte* base = Aligned(model->image_);
  RETURN_IF_ERROR(FillImage(model->layout_, checkpoint, {base, model->layout_.bytes}, nullptr));
  model->weights_ = BindWeights(model->arch_, model->layout_, base);

  model->ops_ = kernels::MakeCpuOps(threads);
  model->slots_ = slots;
  model->context_ = context;
  const kernels::ScratchShape shape =
      ScratchShapeOf(model->arch_, slots * context, slots, kLogitRows, context);
  model->activations_.resize(ActivationBytes(model->arch_, *model->ops_, shape) + 256);
  std::vector<const float*> ropes;
  for (const RopeTable& rope : model->arch_.ropes) ropes.push_back(rope.inv_freq.data());
  model->transformer_ = std::make_unique<Transformer>(
      model->arch_, model->weights_, ropes, *model->ops_,
      CarveActivations(model->arch_, *model->ops_, shape, Aligned(model->activations_)),
      kLogitRows);
  model->tokens_.assign(slots * context, 0);
  model->prompt_length_.assign(slots, 0);
  model->MakeKv();
  return model;
}

// Block b holds all layers; a slot's blocks lie backwards, so that the table matters.
void ModelHarness::MakeKv() {
  const int32_t per_slot = static_cast<int32_t>(CeilDiv(context_, kBlockTokens));
  const int64_t half = int64_t{arch_.kv_heads} * kBlockTokens * arch_.head_dim * 4;
  const int64_t block_bytes = half * 2 * static_cast<int64_t>(arch_.layers.size());
  kv_.resize(block_bytes * per_slot * slots_);
  for (int32_t slot = 0; slot < slots_; ++slot) {
    for (int32_t i = 0; i < per_slot; ++i) {
      block_table_.push_back(slot * per_slot + per_slot - 1 - i);
    }
  }
  for (size_t i = 0; i < arch_.layers.size(); ++i) {
    views_.push_back({.base = kv_.data(),
                      .table = block_table_.data(),
                      .table_stride = per_slot,
                      .block_tokens = kBlockTokens,
                      .block_bytes = block_bytes,
                      .key_offset = static_cast<int64_t>(i) * 2 * half,
                      .value_offset = static_cast<int64_t>(i) * 2 * half + half});
  }
}

void ModelHarness::SetPrompt(int32_t slot, const std::vector<int32_t>& ids) {
  std::copy(ids.begin(), ids.end(), tokens_.begin() + slot * context_);
  prompt_length_[slot] = static_cast<int32_t>(ids.size());
}

void ModelHarness::SetToken(int32_t slot, int32_t position, int32_t id) {
  tokens_[slot * context_ + position] = id;
}

absl::StatusOr<std::vector<RowResult>> ModelHarness::Run(
    const std::vector<Chunk>& chunks, const Transformer::BeforeLayer& before_layer) {
  std::vector<int32_t> slot, position, sequence_slot, sequence_row = {0}, sequence_length;
  std::vector<int32_t> logit_row;
  std::vector<kernels::SamplingRow> sampling;
  Step step;
  for (const Chunk& chunk : chunks) {
    for (int32_t p = chunk.begin; p < chunk.begin + chunk.count; ++p) {
      logit_row.push_back(static_cast<int32_t>(slot.size()));
      slot.push_back(chunk.slot);
      position.push_back(p);
      const int32_t prompt = prompt_length_[chunk.slot];
      sampling.push_back({.slot = chunk.slot,
                          .position = p,
                          .draw = p + 1 >= prompt ? 1 : 0,
                          .prompt_length = prompt,
                          .temperature = 0});
    }
    sequence_slot.push_back(chunk.slot);
    sequence_row.push_back(static_cast<int32_t>(slot.size()));
    sequence_length.push_back(chunk.begin + chunk.count);
    step.rows.longest = std::max(step.rows.longest, chunk.count);
  }
  const int32_t rows = static_cast<int32_t>(slot.size());
  step.rows.rows = rows;
  step.rows.sequences = static_cast<int32_t>(chunks.size());
  step.rows.slot = slot.data();
  step.rows.position = position.data();
  step.rows.sequence_slot = sequence_slot.data();
  step.rows.sequence_row = sequence_row.data();
  step.rows.sequence_length = sequence_length.data();
  step.tokens = {tokens_.data(), context_};
  step.kv = views_;

  std::vector<int32_t> drawn(rows), top_ids(rows * kTop);
  std::vector<float> logprob(rows), top_logprob(rows * kTop);
  step.logit_count = rows;
  step.logit_row = logit_row.data();
  step.sampling = sampling.data();
  step.any_draw = true;
  step.any_logprobs = true;
  step.top_logprobs = kTop;
  step.drawn = drawn.data();
  step.logprob = logprob.data();
  step.top_ids = top_ids.data();
  step.top_logprob = top_logprob.data();
  RETURN_IF_ERROR(transformer_->Forward(step, before_layer, nullptr));

  std::vector<RowResult> results;
  for (int32_t i = 0; i < rows; ++i) {
    results.push_back({drawn[i],
                       logprob[i],
                       {top_ids.begin() + i * kTop, top_ids.begin() + (i + 1) * kTop},
                       {top_logprob.begin() + i * kTop, top_logprob.begin() + (i + 1) * kTop}});
  }
  return results;
}

}  // namespace switchyard::worker
