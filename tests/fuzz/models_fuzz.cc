// An entry of models.d, and the supervisor's configuration: protobuf text format.

#include "supervisor/catalog.h"
#include "tests/fuzz/target.h"

namespace switchyard::supervisor {
namespace {

void Read(const std::string& text) {
  (void)ParseConfig(text, "config.textproto");
  const auto model = ParseModel(text, "/models.d/x.textproto");
  if (!model.ok()) return;
  // What a worker is given on its command line is the same entry.
  const auto again = ParseModel(ModelText(*model), "/elsewhere/x.textproto");
  SY_CHECK(again.ok());
  SY_CHECK(again->SerializeAsString() == model->SerializeAsString());
}

}  // namespace
}  // namespace switchyard::supervisor

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  switchyard::supervisor::Read(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
