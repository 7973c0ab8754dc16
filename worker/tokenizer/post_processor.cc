#include "worker/tokenizer/post_processor.h"

#include <utility>

namespace switchyard::worker::tokenizer {

std::vector<int32_t> ApplyTemplates(const std::vector<TemplateSpec>& templates,
                                    std::vector<int32_t> ids) {
  for (const TemplateSpec& items : templates) {
    std::vector<int32_t> out;
    for (const TemplateItem& item : items) {
      const std::vector<int32_t>& more = item.is_text ? ids : item.ids;
      out.insert(out.end(), more.begin(), more.end());
    }
    ids = std::move(out);
  }
  return ids;
}

}  // namespace switchyard::worker::tokenizer
