#include "supervisor/closer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "common/unique_fd.h"

namespace switchyard::supervisor {
namespace {

TEST(Closer, WhatItWasGivenIsClosedWhenItGoes) {
  std::vector<UniqueFd> readers;
  {
    Closer closer;
    for (int i = 0; i < 100; ++i) {
      auto pipe = Pipe();
      ASSERT_TRUE(pipe.ok());
      readers.push_back(std::move(pipe->first));
      closer.Close(std::move(pipe->second));
    }
  }
  char byte;
  for (const UniqueFd& reader : readers) EXPECT_EQ(::read(reader.get(), &byte, 1), 0);
}

TEST(Closer, MayHaveNothingToDo) { Closer closer; }

}  // namespace
}  // namespace switchyard::supervisor
