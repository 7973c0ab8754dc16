#pragma once

#include <cstdint>
#include <vector>

#include "worker/tokenizer/spec.h"

namespace switchyard::worker::tokenizer {

// Puts each template's own ids around the text's, the first template innermost.
std::vector<int32_t> ApplyTemplates(const std::vector<TemplateSpec>& templates,
                                    std::vector<int32_t> ids);

}  // namespace switchyard::worker::tokenizer
