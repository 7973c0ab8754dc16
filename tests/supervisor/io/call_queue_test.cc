#include "rpc/call_queue.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <chrono>
#include <future>
#include <string>

namespace switchyard {
namespace {

class CallQueueTest : public ::testing::Test {
 protected:
  CallQueueTest() : queue_(builder_.AddCompletionQueue()), server_(builder_.BuildAndStart()) {}
  ~CallQueueTest() override {
    server_->Shutdown(std::chrono::system_clock::now());
    queue_.Stop();
  }

  grpc::ServerBuilder builder_;
  CallQueue queue_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(CallQueueTest, WhatIsPostedRunsOnItsThread) {
  std::promise<std::string> ran;
  queue_.Post([&] {
    char name[16] = {};
    ::pthread_getname_np(::pthread_self(), name, sizeof(name));
    ran.set_value(name);
  });
  EXPECT_EQ(ran.get_future().get(), "calls");
}

TEST_F(CallQueueTest, InOrderAndNotWhileAnotherRuns) {
  std::promise<void> go, done;
  int ran = 0;
  queue_.Post([&] { go.get_future().wait(); });
  queue_.Post([&] { EXPECT_EQ(++ran, 1); });
  queue_.Post([&] {
    EXPECT_EQ(++ran, 2);
    done.set_value();
  });
  EXPECT_EQ(ran, 0);
  go.set_value();
  done.get_future().wait();
}

// The destructor of the fixture waits for it.
TEST_F(CallQueueTest, WhatIsUnderWayWhenItStopsStillRuns) {
  queue_.Post([this] { queue_.Post([] {}); });
}

}  // namespace
}  // namespace switchyard
