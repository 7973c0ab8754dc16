#include "supervisor/status_line.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

namespace v1 = ::switchyard::v1;

TEST(StatusLine, CountsModelsAndNamesThoseThatMatter) {
  v1::Status status;
  EXPECT_EQ(StatusLine(status), "0 models");
  auto add = [&](const char* name, v1::ModelState state, const char* error = "") {
    v1::ModelStatus& model = *status.add_models();
    model.set_name(name);
    model.set_state(state);
    model.set_error(error);
  };
  add("a", v1::WARM);
  EXPECT_EQ(StatusLine(status), "1 model: 1 warm");
  add("b", v1::RESIDENT);
  add("c", v1::WARM);
  add("d", v1::FAILED, "no file");
  add("e", v1::RESIDENT);
  add("f", v1::COLD);
  add("g", v1::LOADING);
  add("h", v1::COLD, "hung");
  EXPECT_EQ(
      StatusLine(status),
      "8 models: 2 resident (b, e), 1 moving (g), 2 warm, 1 cold, 1 unwell (h), 1 failed (d)");
}

TEST(StatusLine, TellsOfAReloadThatFailedInOneLine) {
  v1::Status status;
  status.add_models()->set_state(v1::WARM);
  status.set_reload_error("a.textproto:1:1: no\x1B field\nREADY=1");
  EXPECT_EQ(StatusLine(status),
            "1 model: 1 warm; the last reload failed: a.textproto:1:1: no\\x1B field");
}

}  // namespace
}  // namespace switchyard::supervisor
