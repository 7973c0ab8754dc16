#include "worker/engine/step_runner.h"

#include <algorithm>
#include <cstring>

#include "common/status_macros.h"

namespace switchyard::worker {

absl::StatusOr<std::unique_ptr<StepRunner>> StepRunner::Create(
    const Architecture& arch, const ImageLayout& image, const EngineLimits& limits,
    const KvLayout& kv, Device& device, kernels::Ops& ops, Residency& residency) {
  std::unique_ptr<StepRunner> runner(
      new StepRunner(arch, image, PlanFixed(arch, ops, limits, kv), device, residency));
  RETURN_IF_ERROR(runner->Allocate(limits, kv, ops));
  return runner;
}

absl::Status StepRunner::Allocate(const EngineLimits& limits, const KvLayout& kv,
                                  kernels::Ops& ops) {
  ASSIGN_OR_RETURN(memory_, device_.Allocate(fixed_.bytes));
  auto* base = static_cast<std::byte*>(memory_->data());
  ASSIGN_OR_RETURN(token_staging_, HostBuffer::Create(device_, fixed_.token_staging));
  ASSIGN_OR_RETURN(kv_store_, KvStore::Create(device_, kv, limits.max_sequences,
                                              reinterpret_cast<int32_t*>(base + fixed_.tables)));
  for (auto& buffers : buffers_) {
    ASSIGN_OR_RETURN(buffers, StepBuffers::Create(device_, fixed_.step, base + fixed_.step_buffers,
                                                  fixed_.table_staging));
  }
  weights_ = BindWeights(arch_, image_, residency_.base());
  ASSIGN_OR_RETURN(std::vector<const float*> ropes, UploadRopes());
  transformer_ = std::make_unique<Transformer>(
      arch_, weights_, std::move(ropes), ops,
      CarveActivations(arch_, ops, fixed_.shape, base + fixed_.activations), limits.logit_rows);
  if (device_.has_graphs()) {
    graphs_ = std::make_unique<DecodeGraphs>(
        device_, DecodeSizes(arch_, limits.max_sequences), limits.graphs, [this](int32_t size) {
          return transformer_->Forward(DecodeStep(size), nullptr, device_.compute_stream());
        });
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<const float*>> StepRunner::UploadRopes() {
  std::vector<const float*> ropes;
  for (size_t i = 0; i < arch_.ropes.size(); ++i) {
    const std::vector<float>& from = arch_.ropes[i].inv_freq;
    auto* to = reinterpret_cast<float*>(static_cast<std::byte*>(memory_->data()) + fixed_.ropes[i]);
    RETURN_IF_ERROR(
        device_.Upload(to, from.data(), from.size() * sizeof(float), device_.compute_stream()));
    ropes.push_back(to);
  }
  RETURN_IF_ERROR(device_.Synchronize(device_.compute_stream()));
  return ropes;
}

absl::Status StepRunner::UploadTokens(const Sequence& sequence) {
  const size_t offset = static_cast<size_t>(sequence.slot) * fixed_.token_stride;
  auto* staging = reinterpret_cast<int32_t*>(token_staging_->data()) + offset;
  auto* table =
      reinterpret_cast<int32_t*>(static_cast<std::byte*>(memory_->data()) + fixed_.tokens) + offset;
  const uint64_t bytes = sequence.tokens.size() * sizeof(int32_t);
  std::memcpy(staging, sequence.tokens.data(), bytes);
  return UploadBesideWeights(device_, table, staging, bytes, device_.compute_stream());
}

// ---- A step's inputs

namespace {

kernels::SamplingRow SamplingOf(const Sequence& sequence, int32_t position, bool draw) {
  const SamplingParams& params = sequence.request.sampling;
  kernels::SamplingRow row;
  row.slot = sequence.slot;
  row.position = position;
  row.draw = draw ? 1 : 0;
  row.prompt_length = sequence.prompt_length();
  row.temperature = params.temperature;
  row.top_k = params.top_k;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.repetition_penalty = params.repetition_penalty;
  row.presence_penalty = params.presence_penalty;
  row.frequency_penalty = params.frequency_penalty;
  row.seed = params.seed;
  return row;
}

// Rows whose logits say how likely the next prompt token was: all prompt rows but the last, once.
void ChooseScored(SequenceRows& rows) {
  const Sequence& sequence = *rows.sequence;
  if (!sequence.wants_prompt_scores()) return;
  rows.score_begin = std::max(rows.first, sequence.prompt_scored - 1);
  rows.score_end = std::max(rows.score_begin, std::min(rows.end, sequence.prompt_length() - 1));
}

// Rows that belong to no sequence: nothing reads them, and they write no KV and no token.
void Pad(const StepInputs& in, int32_t begin, int32_t end) {
  for (int32_t row = begin; row < end; ++row) {
    in.slot[row] = in.sequence_slot[row] = -1;
    in.position[row] = in.sequence_length[row] = 0;
    in.sequence_row[row] = in.logit_row[row] = row;
    in.sampling[row] = {.slot = -1, .draw = 0};
  }
}

void WantLogprobs(Launched& launched, int32_t alternatives) {
  if (alternatives < 0) return;
  launched.logprobs = true;
  launched.top = std::max(launched.top, std::min(alternatives, kMostTopLogprobs));
}

}  // namespace

void StepRunner::Assemble(Launched& launched) const {
  const StepInputs& in = launched.buffers->host_inputs();
  int32_t row = 0;
  int32_t sequence_index = 0;
  for (SequenceRows& rows : launched.rows) {
    const Sequence& sequence = *rows.sequence;
    in.sequence_slot[sequence_index] = sequence.slot;
    in.sequence_row[sequence_index] = row;
    in.sequence_length[sequence_index] = rows.end;
    ++sequence_index;
    ChooseScored(rows);
    rows.logits = launched.logit_rows;
    for (int32_t position = rows.first; position < rows.end; ++position, ++row) {
      in.slot[row] = sequence.slot;
      in.position[row] = position;
      const bool draws = rows.draws && position == rows.end - 1;
      const bool scored = position >= rows.score_begin && position < rows.score_end;
      if (!draws && !scored) continue;
      in.logit_row[launched.logit_rows] = row;
      in.sampling[launched.logit_rows] = SamplingOf(sequence, position, draws);
      ++launched.logit_rows;
    }
    if (rows.score_end > rows.score_begin) WantLogprobs(launched, sequence.request.prompt_logprobs);
    if (rows.draws) WantLogprobs(launched, sequence.request.logprobs);
  }
  if (launched.decode_size > 0) {
    Pad(in, row, launched.decode_size);
    row = sequence_index = launched.decode_size;
  }
  in.sequence_row[sequence_index] = row;
}

// One row of each sequence, each of which draws.
int32_t StepRunner::DecodeSizeOf(const Launched& launched) const {
  const bool decodes = std::all_of(
      launched.rows.begin(), launched.rows.end(),
      [](const SequenceRows& rows) { return rows.draws && rows.end - rows.first == 1; });
  return decodes && graphs_ != nullptr ? graphs_->SizeFor(launched.step_rows) : 0;
}

Step StepRunner::StepAt(const StepInputs& in, const StepOutputs& out) const {
  Step step;
  step.rows.slot = in.slot;
  step.rows.position = in.position;
  step.rows.sequence_slot = in.sequence_slot;
  step.rows.sequence_row = in.sequence_row;
  step.rows.sequence_length = in.sequence_length;
  step.tokens.ids =
      reinterpret_cast<int32_t*>(static_cast<std::byte*>(memory_->data()) + fixed_.tokens);
  step.tokens.stride = fixed_.token_stride;
  step.kv = kv_store_->views();
  step.logit_row = in.logit_row;
  step.sampling = in.sampling;
  step.drawn = out.drawn;
  step.logprob = out.logprob;
  step.top_ids = out.top_ids;
  step.top_logprob = out.top_logprob;
  return step;
}

Step StepRunner::DecodeStep(int32_t size) const {
  Step step = StepAt(buffers_[0]->small_inputs(), buffers_[0]->small_outputs());
  step.rows.rows = step.rows.sequences = step.logit_count = size;
  step.rows.longest = 1;
  step.any_draw = true;
  return step;
}

Step StepRunner::DeviceStep(const Launched& launched) const {
  Step step;
  if (launched.decode_size > 0) {
    step = DecodeStep(launched.decode_size);
  } else {
    step = StepAt(launched.buffers->inputs(), launched.buffers->outputs());
    step.rows.rows = launched.step_rows;
    step.rows.sequences = static_cast<int32_t>(launched.rows.size());
    for (const SequenceRows& rows : launched.rows) {
      step.rows.longest = std::max(step.rows.longest, rows.end - rows.first);
      step.any_draw |= rows.draws;
    }
    step.logit_count = launched.logit_rows;
  }
  step.any_logprobs = launched.logprobs;
  step.top_logprobs = launched.top;
  return step;
}

// ---- Launch and read

absl::StatusOr<Launched> StepRunner::Launch(std::vector<SequenceRows> rows, KvCache& cache,
                                            const BeforeWait& before_wait) {
  const StreamHandle stream = device_.compute_stream();
  Launched launched;
  launched.rows = std::move(rows);
  for (const SequenceRows& each : launched.rows) launched.step_rows += each.end - each.first;
  launched.decode_size = DecodeSizeOf(launched);
  launched.buffers = buffers_[next_buffers_].get();
  const int32_t padded = launched.decode_size;  // 0: not a decode step
  launched.buffers->Begin(
      padded > 0 ? StepCapacity{padded, padded}
                 : StepCapacity{launched.step_rows, static_cast<int32_t>(launched.rows.size())});
  Assemble(launched);

  RETURN_IF_ERROR(kv_store_->UploadTables(cache, launched.buffers->table_staging()));
  // Padding draws, too, and nobody reads it.
  RETURN_IF_ERROR(launched.buffers->Upload(std::max(launched.logit_rows, launched.decode_size)));
  RETURN_IF_ERROR(Forward(launched, before_wait));
  RETURN_IF_ERROR(launched.buffers->Download(launched.logit_rows, launched.logprobs, launched.top));
  ASSIGN_OR_RETURN(launched.done, device_.Record(stream));
  next_buffers_ = (next_buffers_ + 1) % buffers_.size();
  return launched;
}

// Whether a decode step's ops are launched one by one or as a graph makes no difference to any bit.
absl::Status StepRunner::Forward(const Launched& launched, const BeforeWait& before_wait) {
  const StreamHandle stream = device_.compute_stream();
  const Step step = DeviceStep(launched);
  const bool scores_after = !step.any_logprobs || transformer_->KeepsLogits(step);
  if (launched.decode_size > 0 && Resident() && scores_after) {
    RETURN_IF_ERROR(graphs_->Launch(launched.decode_size));
    return transformer_->Logprobs(step, stream);
  }
  const auto before_layer = [&](int32_t layer) -> absl::Status {
    if (before_wait) RETURN_IF_ERROR(before_wait());
    const auto layers = static_cast<int32_t>(image_.layer_end.size());
    return residency_.WaitFor(layer < layers ? image_.layer_end[layer] : image_.bytes, stream);
  };
  return transformer_->Forward(step, before_layer, stream);
}

int32_t StepRunner::NextCapture() const {
  return graphs_ != nullptr && Resident() ? graphs_->NextWhenIdle() : 0;
}

absl::Status StepRunner::CaptureOne(int32_t size) {
  Launched padding;
  padding.decode_size = size;
  padding.buffers = buffers_[next_buffers_].get();
  padding.buffers->Begin({size, size});
  Assemble(padding);
  RETURN_IF_ERROR(padding.buffers->Upload(size));
  return graphs_->CaptureOne(size);
}

absl::Status StepRunner::Await(Launched& launched) { return launched.done->Synchronize(); }

}  // namespace switchyard::worker
