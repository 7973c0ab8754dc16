// Who makes way: sequences whose clients do not read.

#include "tests/worker/engine/batcher_fixture.h"

namespace switchyard::worker {
namespace {

class BatcherSuspendedTest : public BatcherTest {};

TEST_F(BatcherSuspendedTest, SuspendedSequencesMakeWay) {
  SetBlocks(6);
  running_ = {Item(1, 48, 49, 3), Item(2, 48, 49, 3)};
  running_[0].suspended = true;
  const BatchPlan plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{0});
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].index, 1);
}

TEST_F(BatcherSuspendedTest, ASuspendedSequenceIsPausedForOneThatWaits) {
  SetBlocks(6);
  running_ = {Item(1, 60, 61, 4)};
  running_[0].suspended = true;
  waiting_ = {Item(2, 0, 64)};
  const BatchPlan plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{0});
  EXPECT_EQ(plan.admit, std::vector<int32_t>{0});
}

TEST_F(BatcherSuspendedTest, ASuspendedSequenceGivesUpItsSlot) {
  slots_ = 0;
  running_ = {Item(1, 60, 61, 4)};
  running_[0].suspended = true;
  waiting_ = {Item(2, 0, 64)};
  const BatchPlan plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{0});
  EXPECT_EQ(plan.admit, std::vector<int32_t>{0});
}

TEST_F(BatcherSuspendedTest, SuspendedSequencesGiveUpTheirSlotsBesideOthers) {
  slots_ = 0;
  running_ = {Item(1, 60, 61, 4), Item(2, 60, 61, 4), Item(3, 60, 61, 4), Item(4, 60, 61, 4)};
  running_[0].suspended = running_[3].suspended = true;
  waiting_ = {Item(5, 0, 5)};
  BatchPlan plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{3});  // no more of them than places are wanted
  EXPECT_EQ(plan.admit, std::vector<int32_t>{0});
  EXPECT_EQ(plan.rows.size(), 3u);
  waiting_ = {Item(5, 0, 5), Item(6, 0, 5), Item(7, 0, 5)};
  plan = Plan();
  EXPECT_EQ(plan.pause, (std::vector<int32_t>{3, 0}));
  EXPECT_EQ(plan.admit, (std::vector<int32_t>{0, 1}));
}

TEST_F(BatcherSuspendedTest, SuspendedSequencesGiveUpTheirBlocksBesideOthers) {
  SetBlocks(18);
  running_ = {Item(1, 100, 101, 7), Item(2, 60, 61, 4), Item(3, 60, 61, 4)};  // 9, 6 and 6 soon
  running_[1].suspended = running_[2].suspended = true;
  waiting_ = {Item(4, 0, 10)};  // 3 soon
  BatchPlan plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{2});
  EXPECT_EQ(plan.admit, std::vector<int32_t>{0});
  waiting_ = {Item(4, 0, 10), Item(5, 0, 10), Item(6, 0, 10)};
  plan = Plan();
  EXPECT_EQ(plan.pause, (std::vector<int32_t>{2, 1}));
  EXPECT_EQ(plan.admit, (std::vector<int32_t>{0, 1, 2}));
}

TEST_F(BatcherSuspendedTest, WhereThereIsRoomSuspendedSequencesStay) {
  slots_ = 1;
  running_ = {Item(1, 60, 61, 4), Item(2, 60, 61, 4)};
  running_[0].suspended = true;
  EXPECT_TRUE(Plan().pause.empty());
  waiting_ = {Item(3, 0, 5)};
  EXPECT_TRUE(Plan().pause.empty());
  EXPECT_EQ(Plan().admit.size(), 1u);
}

TEST_F(BatcherSuspendedTest, NobodyIsPausedInVain) {
  slots_ = 0;
  SetBlocks(20);
  running_ = {Item(1, 200, 201, 13), Item(2, 60, 61, 4)};
  running_[1].suspended = true;
  waiting_ = {Item(3, 0, 80)};  // 7: beside 15, too many, whoever leaves
  EXPECT_TRUE(Plan().pause.empty());
  SetBlocks(1000);
  EXPECT_EQ(Plan().admit.size(), 1u);
  running_.push_back(Item(4, 64, 192, 4));  // a chunk, which leaves no rows for another
  EXPECT_TRUE(Plan().pause.empty());
  running_.pop_back();
  running_[1].complete = true;  // it goes by itself
  EXPECT_TRUE(Plan().pause.empty());
}

TEST_F(BatcherSuspendedTest, AReaderThatIsBackTakesNobodysSlotWhoRuns) {
  slots_ = 0;
  running_ = {Item(2, 60, 61, 4), Item(3, 60, 61, 4)};
  paused_ = {Item(1, 60, 61), Item(4, 60, 61)};
  waiting_ = {Item(5, 0, 5)};
  BatchPlan plan = Plan();
  EXPECT_TRUE(plan.pause.empty());
  EXPECT_TRUE(plan.resume.empty());
  running_[0].suspended = true;
  plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{0});
  EXPECT_EQ(plan.resume, std::vector<int32_t>{0});
  EXPECT_TRUE(plan.admit.empty());
}

TEST_F(BatcherSuspendedTest, SuspendedNewcomersHoldUpNobody) {
  paused_ = {Item(1, 60, 61, 4)};
  paused_[0].suspended = true;
  waiting_ = {Item(2, 0, 5), Item(3, 0, 5)};
  waiting_[0].suspended = true;
  const BatchPlan plan = Plan();
  EXPECT_TRUE(plan.resume.empty());
  EXPECT_EQ(plan.admit, std::vector<int32_t>{1});
}

}  // namespace
}  // namespace switchyard::worker
