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

TEST_F(WaitingQueueTest, EverySecondPlaceIsAnAgedOnesByArrival) {
  Comes(1, -9, 100);
  Comes(2, 0, 100);
  Comes(3, 5, 300);
  Comes(4, 5);
  Comes(5, 9, 100);
  queue_.Age(100);
  EXPECT_EQ(Order(), "1 3 2 4 5 ");
  EXPECT_EQ(Admit(), 1u);
  EXPECT_EQ(Order(), "3 2 4 5 ");
  EXPECT_EQ(Admit(), 3u);
  Comes(6, 99);
  EXPECT_EQ(Order(), "2 6 5 4 ");
  EXPECT_EQ(queue_.size(), 4u);
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

TEST_F(WaitingQueueTest, SuspendedOnesHoldUpNobody) {
  Comes(1, 0, 10);
  Comes(2, 0, 10);
  Comes(3, 5);
  Comes(4, 5);
  sequences_[1]->suspended = sequences_[3]->suspended = true;
  queue_.Age(10);
  EXPECT_EQ(Order(), "2 4 ");
  sequences_[1]->suspended = sequences_[3]->suspended = false;
  EXPECT_EQ(Order(), "1 3 2 4 ");
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
