#pragma once

// Ops whose "model" is a hash: every row's result depends, exactly, on its token, its position, the
// weights of each layer and all keys and values that it sees through the block table. One wrong
// block, table entry, position or weight byte changes the tokens that come out. No arithmetic, so
// it is fast; and there is an oracle without slots, blocks or batches.

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/ops.h"
#include "worker/model/architecture.h"

namespace switchyard::worker {

// The hash's steps, shared with the oracle.
uint32_t Mix(uint32_t a, uint32_t b);

class FakeOps final : public kernels::Ops {
 public:
  // Called at the start of every step; an error makes the step fail.
  std::function<kernels::OpError(const kernels::StepRows&)> on_step;
  // Whether a row's logits are no answer, as those of damaged weights are; null: all are one.
  std::function<bool(const kernels::SamplingRow&)> no_answer;
  // A value read from the KV cache was not what its writer left there.
  bool corrupt = false;

  kernels::DType activation() const override { return kernels::DType::kF32; }
  int64_t ScratchBytes(const kernels::ScratchShape&) const override { return 256; }
  kernels::OpError Embed(const kernels::EmbedArgs& args, kernels::Scratch,
                         kernels::Stream) override;
  kernels::OpError AttentionInput(const kernels::AttentionInputArgs& args, kernels::Scratch,
                                  kernels::Stream) override;
  kernels::OpError Attention(const kernels::AttentionArgs& args, kernels::Scratch,
                             kernels::Stream) override;
  kernels::OpError Linear(const kernels::LinearArgs& args, kernels::Scratch,
                          kernels::Stream) override;
  kernels::OpError PostNormAdd(const kernels::PostNormAddArgs&, kernels::Scratch,
                               kernels::Stream) override;
  kernels::OpError MlpInput(const kernels::MlpInputArgs& args, kernels::Scratch,
                            kernels::Stream) override;
  kernels::OpError MoeRoute(const kernels::MoeRouteArgs&, kernels::Scratch,
                            kernels::Stream) override;
  kernels::OpError MoeExperts(const kernels::MoeExpertsArgs&, kernels::Scratch,
                              kernels::Stream) override;
  kernels::OpError Head(const kernels::HeadArgs& args, kernels::Scratch, kernels::Stream) override;
  kernels::OpError Sample(const kernels::SampleArgs& args, kernels::Scratch,
                          kernels::Stream) override;
  kernels::OpError Logprobs(const kernels::LogprobArgs& args, kernels::Scratch,
                            kernels::Stream) override;
};

// One row of logits for the hash of a row, and what is drawn from it and said about it.
std::vector<float> FakeLogits(uint32_t hash, uint32_t head, int32_t vocabulary);
int32_t FakeDraw(const float* logits, int32_t vocabulary, const kernels::SamplingRow& row);
float FakeLogprob(const float* logits, int32_t vocabulary, int32_t id);

}  // namespace switchyard::worker
