#pragma once

// A whole decode step of each model of deploy/96gb, in its real shape, beside the read limit.

#include <cuda_runtime.h>

#include <string>
#include <vector>

namespace switchyard::bench {

// One row, 512 tokens of context: the step, then each kind of op on its own in a graph. What all of
// a kind's ops read together may then stay in the second-level cache (KV; routers of small models),
// which it does not in the step. Norms, biases and the row of the embedding are not counted as
// bytes: 0.2% at most.
//
// Models whose names begin with one of `names`; all if there is none. Ends the program where a name
// begins none, and where an op fails.
void Deployed(const std::vector<std::string>& names, double read_limit, cudaStream_t stream);

}  // namespace switchyard::bench
