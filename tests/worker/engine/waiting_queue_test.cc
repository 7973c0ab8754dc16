#include "worker/engine/waiting_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace switchyard::worker {
namespace {

class WaitingQueueTest : public testing::Test {
 protected:
  // `id` is its arrival, too.
  void Comes(uint64_t id, int32_t priority, Nanos patient_until = 0) {
    auto sequence = std::make_shared<Sequence>();
    sequence->request.id = id;
    sequence->request.priority = priority;
    sequence->request.patient_until = patient_until;
    sequence->arrival = id;
    sequences_[id] = sequence;
    queue_.Add(sequence);
  }
  uint64_t Admit() {
    const auto next = queue_.Next(1);
    if (next.empty()) return 0;
    queue_.Admit(next[0]);
    return next[0]->request.id;
  }
  std::string AdmitAll() {
    std::string order;
    while (queue_.size() > 0) order += std::to_string(Admit()) + " ";
    return order;
  }
  std::string Order(int32_t most = 100) const {
    std::string order;
    for (const auto& sequence : queue_.Next(most)) {
      order += std::to_string(sequence->request.id) + " ";
    }
    return order;
  }

  WaitingQueue queue_;
  std::map<uint64_t, std::shared_ptr<Sequence>> sequences_;
};

TEST_F(WaitingQueueTest, ByPriorityThenArrivalWhileAllAreYoung) {
  Comes(1, 0, 100);
  Comes(2, 5, 100);
  Comes(3, 0);
  Comes(4, 5);
  queue_.Age(99);
  EXPECT_EQ(Order(), "2 4 1 3 ");
  EXPECT_EQ(Order(2), "2 4 ");
  EXPECT_EQ(queue_.size(), 4u);
}

// Where nobody has a priority, ageing changes nothing.
TEST_F(WaitingQueueTest, OfOnePriorityStrictlyByArrival) {
  for (uint64_t id = 1; id <= 3; ++id) Comes(id, 0, 100);
  for (uint64_t id = 4; id <= 6; ++id) Comes(id, 0, 300);
  queue_.Age(100);
  EXPECT_EQ(Order(), "1 2 3 4 5 6 ");
  EXPECT_EQ(Admit(), 1u);
  Comes(7, 0);
  EXPECT_EQ(Order(), "2 3 4 5 6 7 ");
  EXPECT_EQ(AdmitAll(), "2 3 4 5 6 7 ");
}

TEST_F(WaitingQueueTest, EverySecondPlaceIsTheOldestAgedOnesWhateverItsPriority) {
  Comes(1, -9, 100);
  Comes(2, 0, 100);
  Comes(3, 5, 300);
  Comes(4, 5);
  Comes(5, 9, 100);
  queue_.Age(100);
  EXPECT_EQ(queue_.size(), 5u);
  EXPECT_EQ(Order(), "1 5 2 3 4 ");
  EXPECT_EQ(Order(3), "1 5 2 ");
  EXPECT_EQ(Admit(), 1u);
  EXPECT_EQ(Order(), "5 2 3 4 ");
  EXPECT_EQ(Admit(), 5u);
  Comes(6, 99);
  EXPECT_EQ(Order(), "2 6 3 4 ");
  EXPECT_EQ(queue_.size(), 4u);
  EXPECT_EQ(AdmitAll(), "2 6 3 4 ");
}

// Age adds a claim, it takes none away.
TEST_F(WaitingQueueTest, AnAgedOneKeepsItsPriority) {
  Comes(1, -9, 100);
  Comes(2, -9, 100);
  Comes(3, 5);
  Comes(4, 9, 100);
  queue_.Age(100);
  EXPECT_EQ(Order(), "1 4 2 3 ");
  EXPECT_EQ(AdmitAll(), "1 4 2 3 ");
}

// One that is both the highest and the oldest aged one has had an aged one's place, whichever it
// took: the next is the next highest one's.
TEST_F(WaitingQueueTest, OnePlaceServesTheHighestThatIsTheOldestAgedOneToo) {
  Comes(1, -9, 100);
  Comes(2, 9, 100);
  Comes(3, -9, 100);
  Comes(4, 5);
  queue_.Age(100);
  EXPECT_EQ(Order(), "1 2 4 3 ");  // 2 in the place of the highest
  EXPECT_EQ(AdmitAll(), "1 2 4 3 ");
  Comes(5, 9);
  EXPECT_EQ(AdmitAll(), "5 ");
  Comes(6, 9, 200);
  Comes(7, -9, 200);
  Comes(8, 5);
  queue_.Age(200);
  EXPECT_EQ(Order(), "6 8 7 ");  // 6 in an aged one's place
  EXPECT_EQ(AdmitAll(), "6 8 7 ");
}

// One place is enough for neither to starve.
TEST_F(WaitingQueueTest, AStreamOfHighPrioritiesDoesNotStarveALowOneNorAreTheyStarvedByMany) {
  for (uint64_t id = 1; id <= 10; ++id) Comes(id, 0, 30);
  std::string admitted;
  for (Nanos now = 1; now <= 50; ++now) {
    Comes(100 + static_cast<uint64_t>(now), 5, now + 30);
    queue_.Age(now);
    admitted += Admit() <= 10 ? "o" : "Y";
  }
  EXPECT_EQ(admitted, std::string(29, 'Y') + "oYoYoYoYoYoYoYoYoYoYY");
}

// Nor does one of those that have aged themselves, as all have after a long load.
TEST_F(WaitingQueueTest, AStreamOfAgedHighPrioritiesDoesNotStarveALowOneEither) {
  for (uint64_t id = 1; id <= 3; ++id) Comes(id, -9, 1);
  std::string admitted;
  for (uint64_t id = 4; id <= 20; ++id) Comes(id, 9, 1);
  for (uint64_t id = 21; id <= 30; ++id) {
    Comes(id, 9, 1);
    queue_.Age(1);
    admitted += Admit() <= 3 ? "o" : "Y";
  }
  EXPECT_EQ(admitted, "oYoYoYYYYY");
}

TEST_F(WaitingQueueTest, SuspendedOnesHoldUpNobody) {
  Comes(1, 0, 10);
  Comes(2, 0, 10);
  Comes(3, 5);
  Comes(4, 5);
  sequences_[1]->suspended = sequences_[3]->suspended = true;
  queue_.Age(10);
  EXPECT_EQ(Order(), "2 4 ");
  EXPECT_EQ(Admit(), 2u);  // an aged one's place, though 1 is older
  Comes(5, 0, 10);
  queue_.Age(10);
  EXPECT_EQ(Order(), "4 5 ");
  sequences_[1]->suspended = sequences_[3]->suspended = false;
  EXPECT_EQ(Order(), "3 1 4 5 ");
}

TEST_F(WaitingQueueTest, WhoLeavesIsGoneYoungOrAged) {
  Comes(1, 0, 10);
  Comes(2, 0, 20);
  Comes(3, 0);
  queue_.Age(10);
  for (uint64_t id = 1; id <= 3; ++id) queue_.Remove(sequences_[id]);
  EXPECT_EQ(queue_.size(), 0u);
  queue_.Age(100);
  EXPECT_EQ(Order(), "");
}

}  // namespace
}  // namespace switchyard::worker
