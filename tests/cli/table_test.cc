#include "cli/table.h"

#include <gtest/gtest.h>

namespace switchyard::cli {
namespace {

TEST(Table, AlignsColumns) {
  EXPECT_EQ(Table({{"NAME", ">SIZE", "NOTE"}, {"a", "10", "x"}, {"longer", "1", ""}}),
            "NAME    SIZE  NOTE\n"
            "a         10  x\n"
            "longer     1\n");
  EXPECT_EQ(Table({}), "");
  EXPECT_EQ(Table({{"NAME"}, {"a\x1B[2J"}}), "NAME\na\\x1B[2J\n");
}

}  // namespace
}  // namespace switchyard::cli
