#pragma once

// The shared expert of a mixture, where it is computed by itself, by the ops of a dense MLP.

#include "kernels/ops.h"

namespace switchyard::kernels {

// out += the shared expert's, if there is one. Overwrites shared_inner.
inline OpError AddSharedExpert(Ops& ops, const MoeExpertsArgs& args, Scratch scratch,
                               Stream stream) {
  if (args.shared_gate_up.data == nullptr) return {};
  MlpInputArgs in;
  in.rows = args.rows;
  in.x = args.x;
  in.gate_up = args.shared_gate_up;
  in.activation = args.activation;
  in.out = args.shared_inner;
  if (const OpError error = ops.MlpInput(in, scratch, stream); !error.ok()) return error;
  LinearArgs out;
  out.rows = args.rows;
  out.x = args.shared_inner;
  out.w = args.shared_down;
  out.accumulate = true;
  out.out = args.out;
  return ops.Linear(out, scratch, stream);
}

}  // namespace switchyard::kernels
