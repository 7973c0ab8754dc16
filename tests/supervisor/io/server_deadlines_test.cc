// What a client must do in time, over a real connection.
#include "supervisor/server_deadlines.h"

#include "tests/supervisor/io/server_call_fixture.h"

namespace switchyard::supervisor {
namespace {

TEST_F(ServerCallTest, AnEndThatTheClientDoesNotTakeIsCutOff) {
  auto begun = AddMethod("/a.B/C", 1 << 20);
  service_.taken_within = 0;
  Serve();
  Call("/a.B/C");
  Send("x");
  auto call = begun.get();
  // More than the client's window of 4 MiB, of which it reads nothing.
  for (int i = 0; i < 64; ++i) call->Push(MakeText(std::string(256 << 10, 'a')));
  call->Close({grpc::StatusCode::RESOURCE_EXHAUSTED, "it reads nothing"});
  while (!call->gone()) std::this_thread::yield();
  EXPECT_EQ(call->buffered(), 0u);
  call.reset();
  while (*service_.calls != 0) std::this_thread::yield();
  while (Read() != "(the end)") {  // of what had been sent
  }
  EXPECT_EQ(End().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServerCallTest, AnAnswerInOnePieceThatTheClientDoesNotTakeIsCutOff) {
  auto begun = AddMethod("/a.B/C", UINT64_MAX);
  service_.taken_within = 0;
  Serve();
  Call("/a.B/C");
  Send("x");
  begun.get()->PushAndClose(MakeText(std::string(16 << 20, 'a')));
  while (*service_.calls != 0) std::this_thread::yield();
  context_.TryCancel();
  End();
}

TEST_F(ServerCallTest, ACallWhoseRequestDoesNotComeIsCutOff) {
  AddMethod("/a.B/C", UINT64_MAX);
  service_.arrives_within = 0;
  Serve();
  Call("/a.B/C");
  EXPECT_EQ(End().error_code(), grpc::StatusCode::CANCELLED);
  while (*service_.calls != 0) std::this_thread::yield();
}

TEST_F(ServerCallTest, AStreamWithoutAnEndMayGoOnForEver) {
  auto begun = AddMethod("/a.B/C", UINT64_MAX);
  service_.taken_within = service_.arrives_within = kSecond;  // between two looks
  Serve();
  Call("/a.B/C");
  Send("x");
  auto call = begun.get();
  // A call that is cut off beside it tells that it had been looked at.
  service_.arrives_within = 0;
  grpc::ClientContext context;
  auto beside = stub_->PrepareCall(&context, "/a.B/C", &replies_);
  beside->StartCall(nullptr);
  ASSERT_TRUE(Wait());
  grpc::Status status;
  beside->Finish(&status, nullptr);
  Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  call->PushAndClose(MakeText("answer"));
  EXPECT_EQ(Read(), "answer");
  EXPECT_TRUE(End().ok());
}

// As by a thread that closes it while the queue's is about to tell it of its end.
class ClosingAtItsEnd final : public ServerCall::Handler {
 public:
  explicit ClosingAtItsEnd(std::shared_ptr<ServerCall> call) : call_(std::move(call)) {}
  void OnWritten(bool) override {}
  void OnEnd() override { call_->Closing(); }

 private:
  const std::shared_ptr<ServerCall> call_;
};

TEST_F(ServerCallTest, ACallThatIsClosedAsItEndsIsNotTouchedAfterwards) {
  std::promise<void> begun;
  service_.methods["/a.B/C"] = [&](std::shared_ptr<ServerCall> call, const grpc::ByteBuffer&) {
    begun.set_value();
    return std::make_shared<ClosingAtItsEnd>(std::move(call));
  };
  service_.taken_within = 0;
  Serve();
  Call("/a.B/C");
  Send("x");
  begun.get_future().wait();
  context_.TryCancel();
  End();
  while (*service_.calls != 0) std::this_thread::yield();  // it is gone
  // Another that is cut off tells that its deadline had been looked at.
  service_.arrives_within = 0;
  grpc::ClientContext context;
  auto beside = stub_->PrepareCall(&context, "/a.B/C", &replies_);
  beside->StartCall(nullptr);
  Wait();
  grpc::Status status;
  beside->Finish(&status, nullptr);
  Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace switchyard::supervisor
