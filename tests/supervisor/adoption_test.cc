#include "supervisor/adoption.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kImage = 80 * kMiB;

ModelEntry Entry(const std::string& name) {
  ModelEntry entry = FakeModel(name, kMiB, 8 * kMiB, 10, kMiB, kMiB);
  entry.plan.set_image_key("key-" + name);
  return entry;
}

FoundDescriptor Good(const std::string& model) {
  return {MasterName(model, "key-" + model, kImage), true, true, kImage};
}

std::vector<Adoption> Choose(const std::vector<FoundDescriptor>& found,
                             uint64_t budget = 1024 * kMiB) {
  return ChooseAdoptions(found, {Entry("a"), Entry("b"), Entry("c")}, budget);
}

void ExpectRefused(const FoundDescriptor& found, const std::string& why) {
  const std::vector<Adoption> adoptions = Choose({found});
  ASSERT_EQ(adoptions.size(), 1u);
  EXPECT_EQ(adoptions[0].model, "");
  EXPECT_THAT(adoptions[0].refused, HasSubstr(why));
}

TEST(Adoption, WhatIsAsAModelNeedsItIsItsMaster) {
  const auto adoptions = Choose({Good("b"), Good("a")});
  EXPECT_EQ(adoptions[0].model, "b");
  EXPECT_EQ(adoptions[1].model, "a");
  EXPECT_EQ(adoptions[0].refused + adoptions[1].refused, "");
}

TEST(Adoption, NothingIsFoundOfNothing) { EXPECT_TRUE(Choose({}).empty()); }

TEST(Adoption, TheNameSaysOfWhichImageItIs) {
  FoundDescriptor found = Good("a");
  found.name = MasterName("a", "key-of-before", kImage);
  ExpectRefused(found, "its checkpoint or options have changed");
  found.name = MasterName("nobody", "key-a", kImage);
  ExpectRefused(found, "no model has a master of that name");
  // A name that only begins like a model's.
  found.name = MasterName("a.b", "key-a", kImage);
  ExpectRefused(found, "no model");
  for (const char* name : {"", "stored", "master/", "master/a", "\n", "master/a/key-a/"}) {
    found.name = name;
    EXPECT_NE(Choose({found})[0].refused, "") << name;
  }
}

TEST(Adoption, WhatItIsCountsAndNotWhatItIsCalled) {
  FoundDescriptor found = Good("a");
  found.memfd = false;
  ExpectRefused(found, "not a memfd");
  found = Good("a");
  found.sealed = false;
  ExpectRefused(found, "not complete");
  for (const uint64_t bytes : {uint64_t{0}, kImage - 1, kImage + 1, UINT64_MAX}) {
    found = Good("a");
    found.bytes = bytes;
    ExpectRefused(found, "bytes, and the image 83886080");
  }
}

TEST(Adoption, OneThatIsRefusedDoesNotStandInAnothersWay) {
  FoundDescriptor bad = Good("a");
  bad.sealed = false;
  const auto adoptions = Choose({bad, Good("a"), Good("a")});
  EXPECT_EQ(adoptions[0].model, "");
  EXPECT_EQ(adoptions[1].model, "a");
  EXPECT_EQ(adoptions[2].model, "");
  EXPECT_THAT(adoptions[2].refused, HasSubstr("second"));
}

TEST(Adoption, TheHostBudgetHolds) {
  const auto adoptions = Choose({Good("c"), Good("b"), Good("a")}, 2 * kImage + kMiB);
  EXPECT_EQ(adoptions[2].model, "a");
  EXPECT_EQ(adoptions[1].model, "b");
  EXPECT_EQ(adoptions[0].model, "");
  EXPECT_THAT(adoptions[0].refused, HasSubstr("host budget, 1.00 MiB"));
  // What would be streamed has no master.
  EXPECT_NE(Choose({Good("a")}, kImage - 1)[0].refused, "");
}

TEST(Adoption, PinnedModelsComeFirst) {
  std::vector<ModelEntry> catalog = {Entry("a"), Entry("b")};
  catalog[1].model.set_pinned(true);
  const auto adoptions = ChooseAdoptions({Good("a"), Good("b")}, catalog, kImage);
  EXPECT_EQ(adoptions[0].model, "");
  EXPECT_EQ(adoptions[1].model, "b");
}

TEST(Adoption, WhatCannotBeServedOrHasNoIdentityAdoptsNothing) {
  std::vector<ModelEntry> catalog = {Entry("a"), Entry("b")};
  catalog[0].problem = absl::NotFoundError("no checkpoint");
  catalog[1].plan.clear_image_key();
  EXPECT_EQ(MasterName("b", "", kImage), "");
  FoundDescriptor nameless = Good("b");
  nameless.name = "";
  const auto adoptions = ChooseAdoptions({Good("a"), Good("b"), nameless}, catalog, 1024 * kMiB);
  EXPECT_THAT(adoptions[0].refused, HasSubstr("a cannot be served"));
  EXPECT_NE(adoptions[1].refused, "");
  EXPECT_NE(adoptions[2].refused, "");
}

}  // namespace
}  // namespace switchyard::supervisor
