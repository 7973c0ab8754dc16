// What there is no memory for is refused, over a real connection.
#include <thread>

#include "supervisor/event_loop.h"
#include "supervisor/request_memory.h"
#include "supervisor/server_methods.h"
#include "tests/supervisor/io/server_call_fixture.h"

namespace switchyard::supervisor {
namespace {

TEST_F(ServerCallTest, TooManyLargeRequestsAreToldToComeLater) {
  std::promise<void> begun, go_on;
  service_.background.Post([&begun, waits = go_on.get_future().share()] {
    begun.set_value();
    waits.wait();
  });
  begun.get_future().wait();
  while (service_.background.size() < kMostInBackground) service_.background.Post([] {});
  service_.methods["/a.B/C"] = [](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer& bytes) {
    return BeginCall<Text>(nullptr, std::make_shared<TestCall>(std::move(call), UINT64_MAX), bytes,
                           [](const Text&, const std::shared_ptr<TestCall>&) {});
  };
  Serve();
  Call("/a.B/C");
  Send(std::string(2 * kParsedAtOnce, 'x'));
  const grpc::Status status = End();
  go_on.set_value();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_details().find("google.rpc.RetryInfo"), std::string::npos);
}

// What the memory for requests says of one of token ids, which grow when they are parsed.
class ServerCallMemoryTest : public ServerCallTest {
 protected:
  using Ids = v1::DetokenizeRequest;
  void Limit(uint64_t bytes) {
    service_.memory = std::make_shared<RequestMemory>(bytes);
    service_.methods["/a.B/C"] = [this](std::shared_ptr<ServerCall> call,
                                        const grpc::ByteBuffer& bytes) {
      return BeginCall<Ids>(&loop_, std::make_shared<TestCall>(std::move(call), UINT64_MAX), bytes,
                            [this](const Ids&, const std::shared_ptr<TestCall>& call) {
                              used_ = service_.memory->used();
                              call->PushAndClose(MakeText("done"));
                            });
    };
    Serve();
    Call("/a.B/C");
  }
  void SendIds(int count) {
    Ids ids;
    for (int i = 0; i < count; ++i) ids.add_ids(1);
    stream_->Write(SerializeMessage(ids), nullptr);
    ASSERT_TRUE(Wait());
  }
  void RunUntilAnswered() {
    std::thread client([this] {
      grpc::ByteBuffer bytes;
      stream_->Read(&bytes, nullptr);
      Wait();
      loop_.Post([this] { loop_.Stop(); });
    });
    loop_.Run();
    client.join();
  }

  EventLoop loop_;
  uint64_t used_ = 0;
};

TEST_F(ServerCallMemoryTest, CountsWhatARequestBecomesAndGivesItBack) {
  Limit(64 << 20);
  SendIds(1 << 20);
  RunUntilAnswered();
  EXPECT_TRUE(End().ok());
  EXPECT_GE(used_, 4u << 20);
  while (service_.memory->used() != 0) std::this_thread::yield();
}

TEST_F(ServerCallMemoryTest, RefusesByItsBytesBeforeItIsParsed) {
  Limit(1 << 20);
  SendIds(1 << 20);
  EXPECT_EQ(End().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  while (service_.memory->used() != 0) std::this_thread::yield();
}

TEST_F(ServerCallMemoryTest, RefusesByWhatItBecomesBeforeItIsKept) {
  Limit(4 << 20);
  SendIds(1 << 20);
  const grpc::Status status = End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(used_, 0u);
  while (service_.memory->used() != 0) std::this_thread::yield();
}

}  // namespace
}  // namespace switchyard::supervisor
