// What clients cost that ask for much, or go away.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

using RouterClientsTest = RouterFixture;

TEST_F(RouterClientsTest, AWorkerIsSentNoMoreThanItCanLookAt) {
  constexpr uint64_t kText = 400 << 10;
  rules_.validates = kSecond;
  options_.unseen_bytes = 1 << 20;
  Begin(300 * kMiB);
  Settle();
  std::vector<std::shared_ptr<ClientView>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(h_->Generate("a", 1, 0, 0, std::string(kText, 'x')));
  }
  // The worker still has to look at one whose client has gone.
  h_->Cancel(clients[1]);
  for (const auto& client : clients) {
    ASSERT_TRUE(client->cancelled || Done(client));
    EXPECT_TRUE(client->status.ok()) << client->status;
  }
  EXPECT_GT(h_->world.most_unseen, options_.unseen_bytes / 2);
  EXPECT_LT(h_->world.most_unseen, options_.unseen_bytes + kText + 4096);
}

TEST_F(RouterClientsTest, ARequestLargerThanThatIsSentAlone) {
  options_.unseen_bytes = 1;
  Begin(300 * kMiB);
  auto first = h_->Generate("a", 1);
  auto second = h_->Generate("a", 1);
  ASSERT_TRUE(Done(first));
  ASSERT_TRUE(Done(second));
  EXPECT_TRUE(second->status.ok()) << second->status;
}

TEST_F(RouterClientsTest, CallsTakeTurnsWithRequests) {
  rules_.validates = 100 * kMillisecond;
  options_.unseen_bytes = 1;
  Begin(300 * kMiB);
  Settle();
  std::vector<std::shared_ptr<ClientView>> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(h_->Generate("a", 1));
  v1::TokenizeRequest request;
  request.set_model("a");
  bool answered = false;
  h_->router->Tokenize(request, [&](const auto& reply) { answered = reply.ok(); });
  for (int i = 0; i < 5; ++i) clients.push_back(h_->Generate("a", 1));
  ASSERT_TRUE(h_->RunUntil([&] { return answered; }));
  EXPECT_EQ(clients.back()->finishes, 0);
  ASSERT_TRUE(Done(clients.back()));
}

struct NoSink final : SwitchSink {
  void Write(const v1::SwitchEvent&) override {}
  void Finish(absl::Status) override {}
};

TEST_F(RouterClientsTest, AClientOfASwitchThatLeavesIsForgottenAndTheSwitchGoesOn) {
  Begin(150 * kMiB);
  Settle();
  auto sink = std::make_shared<NoSink>();
  const RequestId id = h_->router->Switch("a", true, sink);
  EXPECT_GT(sink.use_count(), 1);
  h_->router->CancelRequest(id);
  EXPECT_EQ(sink.use_count(), 1);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  EXPECT_TRUE(h_->StatusOf("a").is_default());
}

// A reply that tells how often it was called, and when nobody has it any more.
template <typename T>
struct Waiting {
  std::shared_ptr<int> calls = std::make_shared<int>(0);
  Reply<T> reply() {
    return [calls = calls](const absl::StatusOr<T>&) { ++*calls; };
  }
  bool forgotten() const { return calls.use_count() == 1 && *calls == 0; }
};

TEST_F(RouterClientsTest, APrefetchWhoseClientLeavesGoesOn) {
  options_.prefetch_at_start = false;
  Begin(150 * kMiB);
  Waiting<v1::PrefetchReply> waits;
  const RequestId id = h_->router->Prefetch("b", waits.reply());
  EXPECT_FALSE(waits.forgotten());
  h_->router->CancelRequest(id);
  EXPECT_TRUE(waits.forgotten());
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("b").state() == v1::WARM; }));
}

TEST_F(RouterClientsTest, AnUnloadWhoseClientLeavesGoesOn) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  auto busy = h_->Generate("a", 50);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  Waiting<v1::UnloadReply> waits;
  const RequestId id = h_->router->Unload("a", waits.reply());
  EXPECT_FALSE(waits.forgotten());
  h_->router->CancelRequest(id);
  EXPECT_TRUE(waits.forgotten());
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::COLD; }));
}

TEST_F(RouterClientsTest, ACallWhoseClientLeavesIsForgottenSentOrNot) {
  options_.queue_limit = 1;
  rules_.validates = kSecond;
  Begin(150 * kMiB);
  v1::TokenizeRequest request;
  request.set_model("a");
  for (bool sent : {false, true}) {
    if (sent) Settle();
    Waiting<v1::TokenizeReply> waits;
    const RequestId id = h_->router->Tokenize(request, waits.reply());
    if (sent) h_->RunFor(100 * kMillisecond);
    EXPECT_FALSE(waits.forgotten());
    h_->router->CancelRequest(id);
    EXPECT_TRUE(waits.forgotten());
  }
  // Its place in the queue is free, and the worker's answer to the other is nobody's.
  bool answered = false;
  h_->router->Tokenize(request, [&](const auto& reply) { answered = reply.ok(); });
  EXPECT_TRUE(h_->RunUntil([&] { return answered; }));
}

}  // namespace
}  // namespace switchyard::supervisor
