// The engine on its own thread, and commands from others: for the thread sanitizer, too.

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "tests/worker/engine/fake_model.h"
#include "tests/worker/engine/fake_ops.h"
#include "worker/engine/engine.h"

namespace switchyard::worker {
namespace {

// Counts what a test waits for.
class WaitingSink final : public EngineSink {
 public:
  void OnEvents(std::vector<SequenceEvent> events) override {
    std::lock_guard<std::mutex> lock(mu_);
    for (SequenceEvent& event : events) {
      for (const TokenResult& token : event.tokens) tokens_[event.id].push_back(token.id);
      if (event.end != SequenceEnd::kNone) ends_[event.id] = event.end;
    }
    changed_.notify_all();
  }
  void OnLease(const LeaseReport& report) override {
    std::lock_guard<std::mutex> lock(mu_);
    report_ = report;
    changed_.notify_all();
  }
  SequenceEnd AwaitEnd(RequestId id) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return ends_.count(id) > 0; });
    return ends_[id];
  }
  void AwaitTokens(RequestId id, size_t count) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return tokens_[id].size() >= count || ends_.count(id) > 0; });
  }
  LeaseReport AwaitSettled(uint64_t epoch) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return report_.epoch >= epoch && report_.settled; });
    return report_;
  }
  std::vector<int32_t> tokens(RequestId id) {
    std::lock_guard<std::mutex> lock(mu_);
    return tokens_[id];
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::map<RequestId, std::vector<int32_t>> tokens_;
  std::map<RequestId, SequenceEnd> ends_;
  LeaseReport report_;
};

class EngineThreadsTest : public testing::Test {
 protected:
  EngineThreadsTest() : model_(MakeFakeModel({0, 24, 0})), device_(MakeCpuDevice(2)) {
    EngineLimits limits;
    limits.context_length = 256;
    limits.max_sequences = 4;
    limits.prefill_chunk = 32;
    kv_ = PlanKv(model_.arch, limits.kv_dtype, 256, 4, 32, kCpuPageBytes);
    engine_ = *Engine::Create(model_.arch, model_.image, limits, *device_, ops_, clock_, sink_);
    engine_->SetSource(std::make_shared<MasterSource>(std::span(model_.master)));
    thread_ = std::thread([this] { engine_->Run(); });
  }
  ~EngineThreadsTest() override {
    engine_->Stop();
    thread_.join();
  }

  SequenceRequest Request(RequestId id, int32_t max_tokens) {
    SequenceRequest request;
    request.id = id;
    for (int32_t i = 0; i < 50; ++i) request.prompt.push_back((id * 7 + i) % 61);
    request.max_tokens = max_tokens;
    request.sampling.seed = id;
    return request;
  }
  uint64_t Lease(bool whole, bool pause) {
    const uint64_t epoch = ++epoch_;
    engine_->SetLease({epoch, whole ? model_.image.bytes : 0, whole ? kv_.useful_bytes : 0, pause,
                       uint64_t{1} << 30});
    return epoch;
  }

  FakeModel model_;
  FakeOps ops_;
  KvLayout kv_;
  std::unique_ptr<Device> device_;
  SteadyClock clock_;
  WaitingSink sink_;
  std::unique_ptr<Engine> engine_;
  std::atomic<uint64_t> epoch_ = 0;
  std::thread thread_;
};

TEST_F(EngineThreadsTest, CommandsFromManyThreads) {
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([this, c] {
      std::mt19937 random(c);
      for (RequestId i = 1; i <= 20; ++i) {
        const RequestId id = c * 100 + i;
        engine_->Submit(Request(id, 1 + random() % 100));
        if (random() % 3 == 0) engine_->Suspend(id, true);
        if (random() % 4 == 0) engine_->Cancel(id);
        engine_->Stats();
        engine_->Suspend(id, false);
        if (random() % 2 == 0) sink_.AwaitEnd(id);
      }
      for (RequestId i = 1; i <= 20; ++i) sink_.AwaitEnd(c * 100 + i);
    });
  }
  std::thread supervisor([this] {
    for (int i = 0; i < 30; ++i) {
      sink_.AwaitSettled(Lease(i % 2 == 0, i % 4 == 1));
    }
    Lease(true, false);
  });
  supervisor.join();
  for (std::thread& client : clients) client.join();
  EXPECT_FALSE(ops_.corrupt);
}

TEST_F(EngineThreadsTest, SwapsInTheMiddleChangeNoBit) {
  Lease(true, false);
  for (RequestId id = 1; id <= 4; ++id) engine_->Submit(Request(id, 200));
  for (size_t at = 20; at < 200; at += 40) {
    sink_.AwaitTokens(1, at);
    sink_.AwaitSettled(Lease(false, true));
    Lease(true, false);
  }
  for (RequestId id = 1; id <= 4; ++id) {
    EXPECT_EQ(sink_.AwaitEnd(id), SequenceEnd::kLength);
    EXPECT_EQ(sink_.tokens(id), FakeAnswerOf(model_, Request(id, 200)).tokens);
  }
}

TEST_F(EngineThreadsTest, ADeadlinePassesWithoutACommand) {
  SequenceRequest request = Request(1, 10);
  request.deadline = clock_.Now() + kMillisecond;
  engine_->Submit(request);  // no lease, so nothing else wakes the engine
  EXPECT_EQ(sink_.AwaitEnd(1), SequenceEnd::kDeadline);
}

TEST_F(EngineThreadsTest, MastersComeAndGoWhileWeightsGrow) {
  for (int i = 0; i < 50; ++i) {
    const uint64_t epoch = Lease(true, false);
    engine_->SetSource(nullptr);
    engine_->SetSource(std::make_shared<MasterSource>(std::span(model_.master)));
    sink_.AwaitSettled(epoch);
    sink_.AwaitSettled(Lease(false, true));
  }
  Lease(true, false);
  engine_->Submit(Request(1, 50));
  EXPECT_EQ(sink_.AwaitEnd(1), SequenceEnd::kLength);
  EXPECT_EQ(sink_.tokens(1), FakeAnswerOf(model_, Request(1, 50)).tokens);
}

}  // namespace
}  // namespace switchyard::worker
