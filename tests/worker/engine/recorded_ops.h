#pragma once

// Ops whose calls go to a tape while it records: with their arguments as they are then, as a
// captured graph keeps them.

#include "absl/status/status.h"
#include "kernels/ops.h"
#include "tests/worker/device/fault_device.h"

namespace switchyard::worker {

class RecordedOps final : public kernels::Ops {
 public:
  RecordedOps(kernels::Ops& ops, Tape& tape) : ops_(ops), tape_(tape) {}

  kernels::DType activation() const override { return ops_.activation(); }
  const char* matrix_library() const override { return ops_.matrix_library(); }
  int64_t ScratchBytes(const kernels::ScratchShape& shape) const override {
    return ops_.ScratchBytes(shape);
  }

#define SWITCHYARD_RECORDED_OP(Op)                                                       \
  kernels::OpError Op(const kernels::Op##Args& args, kernels::Scratch scratch,           \
                      kernels::Stream stream) override {                                 \
    return Do([this, args, scratch, stream] { return ops_.Op(args, scratch, stream); }); \
  }
  SWITCHYARD_RECORDED_OP(Embed)
  SWITCHYARD_RECORDED_OP(AttentionInput)
  SWITCHYARD_RECORDED_OP(Attention)
  SWITCHYARD_RECORDED_OP(Linear)
  SWITCHYARD_RECORDED_OP(PostNormAdd)
  SWITCHYARD_RECORDED_OP(MlpInput)
  SWITCHYARD_RECORDED_OP(MoeRoute)
  SWITCHYARD_RECORDED_OP(MoeExperts)
  SWITCHYARD_RECORDED_OP(Head)
  SWITCHYARD_RECORDED_OP(Sample)
#undef SWITCHYARD_RECORDED_OP
  kernels::OpError Logprobs(const kernels::LogprobArgs& args, kernels::Scratch scratch,
                            kernels::Stream stream) override {
    return Do([this, args, scratch, stream] { return ops_.Logprobs(args, scratch, stream); });
  }

 private:
  template <typename Call>
  kernels::OpError Do(const Call& call) {
    if (!tape_.records) return call();
    tape_.calls.push_back([call]() -> absl::Status {
      const kernels::OpError error = call();
      return error.ok() ? absl::OkStatus() : absl::InternalError(error.message);
    });
    return {};
  }

  kernels::Ops& ops_;
  Tape& tape_;
};

}  // namespace switchyard::worker
