#pragma once

namespace switchyard {

// The exit statuses of a planner (`switchyard-worker --plan`) whose last line says why there is no
// plan.
constexpr int kVerdict = 1;    // the model cannot be served
constexpr int kNoVerdict = 3;  // that cannot be told now: see ExitStatus of worker/serve

}  // namespace switchyard
