#include "bench/kernels.h"

namespace switchyard::bench {

void BenchOtherOps(KernelBench& bench) {}

}  // namespace switchyard::bench
