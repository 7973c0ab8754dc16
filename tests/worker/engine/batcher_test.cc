#include <algorithm>
#include <random>

#include "tests/worker/engine/batcher_fixture.h"

namespace switchyard::worker {
namespace {

TEST_F(BatcherTest, DecodeRowsComeBeforeChunks) {
  running_ = {Item(1, 0, 200), Item(2, 30, 31, 2)};
  const BatchPlan plan = Plan();
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].index, 1);
  EXPECT_EQ(plan.rows[0].end, 31);
  EXPECT_EQ(plan.rows[1].index, 0);
  EXPECT_EQ(plan.rows[1].end, kChunk);
}

TEST_F(BatcherTest, ChunksEndAtAbsoluteMultiples) {
  EXPECT_EQ(NextRowsEnd(0, 200, 64), 64);
  EXPECT_EQ(NextRowsEnd(64, 200, 64), 128);
  EXPECT_EQ(NextRowsEnd(70, 200, 64), 128);
  EXPECT_EQ(NextRowsEnd(192, 200, 64), 200);
  EXPECT_EQ(NextRowsEnd(0, INT32_MAX, INT32_MAX), INT32_MAX);
}

TEST_F(BatcherTest, WholeChunksOrNone) {
  running_ = {Item(1, 0, 200), Item(2, 0, 200)};
  EXPECT_EQ(Plan().rows.size(), 1u);
  running_[1].length = 3;  // three rows are left, and three are all it has
  EXPECT_EQ(Plan().rows.size(), 2u);
}

TEST_F(BatcherTest, SeveralShortPromptsShareAStep) {
  waiting_ = {Item(1, 0, 20), Item(2, 0, 20), Item(3, 0, 20), Item(4, 0, 20)};
  const BatchPlan plan = Plan();
  EXPECT_EQ(plan.admit.size(), 3u);
  EXPECT_EQ(plan.rows.size(), 3u);
}

TEST_F(BatcherTest, SlotsBoundAdmission) {
  slots_ = 2;
  waiting_ = {Item(1, 0, 5), Item(2, 0, 5), Item(3, 0, 5)};
  EXPECT_EQ(Plan().admit.size(), 2u);
}

TEST_F(BatcherTest, NobodyOvertakesOneThatDoesNotFit) {
  SetBlocks(20);
  running_ = {Item(1, 100, 101, 7)};
  waiting_ = {Item(2, 0, 200), Item(3, 0, 5)};
  const BatchPlan plan = Plan();
  EXPECT_TRUE(plan.admit.empty());
  EXPECT_EQ(plan.rows.size(), 1u);
}

TEST_F(BatcherTest, AdmissionLeavesRunningPromptsTheirRoom) {
  SetBlocks(20);
  running_ = {Item(1, 0, 200)};  // needs 13 blocks in the end and 2 of margin, and holds none yet
  waiting_ = {Item(2, 0, 80)};   // 5, and 2
  EXPECT_TRUE(Plan().admit.empty());
  SetBlocks(22);
  running_[0].computed = 192;  // its last chunk leaves rows for others
  running_[0].held = {12};
  waiting_[0].length = 50;
  EXPECT_EQ(Plan().admit.size(), 1u);
}

TEST_F(BatcherTest, OutOfBlocksTheYoungestIsPaused) {
  SetBlocks(9);
  running_ = {Item(2, 48, 49, 3), Item(1, 48, 49, 3), Item(3, 40, 41, 3)};
  const BatchPlan plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{2});
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].index, 1);
  EXPECT_EQ(plan.rows[1].index, 0);
}

TEST_F(BatcherTest, PriorityOutranksAge) {
  SetBlocks(6);
  running_ = {Item(1, 48, 49, 3), Item(2, 48, 49, 3)};
  running_[1].priority = 1;
  const BatchPlan plan = Plan();
  EXPECT_EQ(plan.pause, std::vector<int32_t>{0});
  EXPECT_EQ(plan.rows[0].index, 1);
}

TEST_F(BatcherTest, TheYoungestWaitsWhenItIsTheOneThatLacksBlocks) {
  SetBlocks(6);
  running_ = {Item(1, 40, 41, 3), Item(2, 48, 49, 3)};
  waiting_ = {Item(3, 0, 1)};
  const BatchPlan plan = Plan();
  EXPECT_TRUE(plan.pause.empty());
  EXPECT_TRUE(plan.admit.empty());
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].index, 0);
}

TEST_F(BatcherTest, PausedOnesComeBackFirst) {
  SetBlocks(9);
  paused_ = {Item(5, 60, 61, 4), Item(2, 60, 61, 4)};
  waiting_ = {Item(1, 0, 5)};
  const BatchPlan plan = Plan();
  // First in, first out; the second does not fit with its margin, and nobody overtakes it.
  EXPECT_EQ(plan.resume, std::vector<int32_t>{0});
  EXPECT_TRUE(plan.admit.empty());
}

TEST_F(BatcherTest, NobodyComesInWhileTheLeaseGoes) {
  resume_ = admit_ = false;
  running_ = {Item(1, 60, 61, 4)};
  paused_ = {Item(2, 60, 61, 4)};
  waiting_ = {Item(3, 0, 5)};
  const BatchPlan plan = Plan();
  EXPECT_TRUE(plan.resume.empty() && plan.admit.empty());
  EXPECT_EQ(plan.rows.size(), 1u);
}

TEST_F(BatcherTest, WhereAllFinishOnlyThosePausedComeBack) {
  admit_ = false;
  running_ = {Item(1, 60, 61, 4)};
  paused_ = {Item(2, 60, 61, 4)};
  waiting_ = {Item(3, 0, 5)};
  const BatchPlan plan = Plan();
  EXPECT_EQ(plan.resume, std::vector<int32_t>{0});
  EXPECT_TRUE(plan.admit.empty());
  EXPECT_EQ(plan.rows.size(), 2u);
}

TEST_F(BatcherTest, ChooseToPauseTakesTheLowest) {
  running_ = {Item(1, 60, 61, 4), Item(2, 60, 61, 4), Item(3, 60, 61, 4)};
  running_[0].suspended = true;
  for (const BatchItem& item : running_) room_.Add(item.held);
  EXPECT_EQ(ChooseToPause(running_, room_, 12), std::vector<int32_t>{});
  EXPECT_EQ(ChooseToPause(running_, room_, 8), std::vector<int32_t>{0});
  EXPECT_EQ(ChooseToPause(running_, room_, 4), (std::vector<int32_t>{0, 2}));
}

// Whatever the picture: the plan fits, respects its bounds, and somebody who can go on does.
TEST_F(BatcherTest, RandomPictures) {
  std::mt19937 random(5);
  for (int round = 0; round < 20000; ++round) {
    running_.clear();
    paused_.clear();
    waiting_.clear();
    slots_ = random() % 4;
    uint64_t arrival = 0;
    const auto fill = [&](std::vector<BatchItem>& list, int most, bool holds) {
      for (int i = random() % (most + 1); i > 0; --i) {
        const int32_t computed = holds ? random() % 300 : 0;
        BatchItem item = Item(++arrival, computed, computed + 1 + random() % 300,
                              holds ? (computed + 15) / 16 : 0);
        item.priority = random() % 2;
        item.suspended = random() % 4 == 0;
        list.push_back(item);
      }
    };
    fill(running_, 4, true);
    fill(paused_, 3, true);
    fill(waiting_, 3, false);
    int32_t held = 0;
    for (const BatchItem& item : running_) held += item.held[0];
    SetBlocks(std::max(held, 38) + random() % 20);  // 38: one whole sequence of 600
    const BatchPlan plan = Plan();
    int32_t rows = 0;
    int32_t blocks = held;
    for (const int32_t i : plan.pause) blocks -= running_[i].held[0];
    for (const int32_t i : plan.resume) blocks += paused_[i].held[0];
    for (const BatchRows& each : plan.rows) {
      rows += each.end - each.first;
      const auto& list = each.from == BatchRows::From::kRunning  ? running_
                         : each.from == BatchRows::From::kPaused ? paused_
                                                                 : waiting_;
      blocks += (each.end + 15) / 16 - list[each.index].held[0];
      ASSERT_FALSE(list[each.index].suspended);
      if (each.from == BatchRows::From::kRunning) {
        ASSERT_EQ(std::count(plan.pause.begin(), plan.pause.end(), each.index), 0);
      }
    }
    ASSERT_LE(rows, kChunk + 4);
    ASSERT_LE(blocks, static_cast<int32_t>(room_.limit));
    ASSERT_LE(plan.resume.size() + plan.admit.size(), slots_ + plan.pause.size());
    const auto can_go = [](const BatchItem& item) { return !item.suspended; };
    const bool somebody = std::any_of(running_.begin(), running_.end(), can_go) ||
                          ((slots_ > 0 || !running_.empty()) &&
                           (std::any_of(paused_.begin(), paused_.end(), can_go) ||
                            std::any_of(waiting_.begin(), waiting_.end(), can_go)));
    ASSERT_EQ(!plan.rows.empty(), somebody) << "round " << round;
  }
}

}  // namespace
}  // namespace switchyard::worker
