#include "supervisor/readiness.h"

#include <algorithm>

namespace switchyard::supervisor {

Readiness ReadinessOf(const std::vector<Standing>& models, Nanos waited, Nanos idle) {
  const bool any_answers = std::any_of(models.begin(), models.end(), [](const Standing& model) {
    return model.kind == Standing::Kind::kAnswers;
  });
  Readiness readiness;
  for (const Standing& model : models) {
    const bool wanted = model.pinned || !any_answers;
    if (wanted && model.kind == Standing::Kind::kComes) readiness.missing.push_back(model.model);
  }
  readiness.ready = readiness.missing.empty() || waited >= kLongestUnready || idle >= kLongestIdle;
  return readiness;
}

}  // namespace switchyard::supervisor
