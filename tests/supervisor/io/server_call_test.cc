// Calls over a real connection, with methods made up here.
#include "supervisor/server_call.h"

#include <fcntl.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "supervisor/event_loop.h"
#include "supervisor/server_methods.h"
#include "supervisor/server_stream.h"
#include "switchyard/v1/inference.pb.h"
#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

using Text = v1::TokenizeRequest;  // any message with a string

Text MakeText(const std::string& text) {
  Text message;
  message.set_text(text);
  return message;
}

Merged Join(Text* waiting, Text* next) {
  waiting->mutable_text()->append(next->text());
  return Merged::kAppended;
}

class TestCall final : public StreamCall<Text> {
 public:
  // With a limit, what waits is not joined: a client takes messages of 4 MiB at most.
  TestCall(std::shared_ptr<ServerCall> call, uint64_t limit)
      : StreamCall(std::move(call), limit == UINT64_MAX ? Join : MergeNothing, limit) {}
  std::promise<void> cancelled;
  std::counting_semaphore<> drained{0};

 private:
  void Cancelled() override { cancelled.set_value(); }
  void Drained() override { drained.release(); }
};

class ServerCallTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.RegisterAsyncGenericService(&service_.generic);
    builder.AddListeningPort(unix_socket_, grpc::InsecureServerCredentials());
    queue_ = std::make_unique<CallQueue>(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    stub_ = std::make_unique<grpc::GenericStub>(
        grpc::CreateInsecureChannelFromFd("test", Connect().Release()));
  }
  // A client's end, of a connection that holds little that is not read.
  UniqueFd Connect() {
    auto pair = SocketPair();
    EXPECT_TRUE(pair.ok());
    const int bytes = 4096;
    ::setsockopt(pair->second.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    ::fcntl(pair->second.get(), F_SETFL, O_NONBLOCK);
    grpc::AddInsecureChannelFromFd(server_.get(), pair->second.Release());
    return std::move(pair->first);
  }
  void TearDown() override {
    Shutdown();
    replies_.Shutdown();
    void* tag;
    bool ok;
    while (replies_.Next(&tag, &ok)) {
    }
  }
  void Shutdown() {
    service_.deadlines.Stop();
    server_->Shutdown(std::chrono::system_clock::now());
    queue_->Stop();
  }
  void Serve() { ServerCall::Accept(queue_.get(), &service_); }
  // A method whose handler the test gets, when a call has begun.
  std::future<std::shared_ptr<TestCall>> AddMethod(const std::string& path, uint64_t limit) {
    auto begun = std::make_shared<std::promise<std::shared_ptr<TestCall>>>();
    service_.methods[path] = [begun, limit](std::shared_ptr<ServerCall> call,
                                            const grpc::ByteBuffer&) {
      auto handler = std::make_shared<TestCall>(std::move(call), limit);
      begun->set_value(handler);
      return handler;
    };
    return begun->get_future();
  }

  // The client: one operation at a time.
  bool Wait() {
    void* tag;
    bool ok = false;
    EXPECT_TRUE(replies_.Next(&tag, &ok));
    return ok;
  }
  void Call(const std::string& path) {
    stream_ = stub_->PrepareCall(&context_, path, &replies_);
    stream_->StartCall(nullptr);
    ASSERT_TRUE(Wait());
  }
  void Send(const std::string& text) {
    stream_->Write(SerializeMessage(MakeText(text)), nullptr);
    ASSERT_TRUE(Wait());
  }
  std::string Read() {
    grpc::ByteBuffer bytes;
    stream_->Read(&bytes, nullptr);
    return Wait() ? ParseRequest<Text>(bytes)->text() : "(the end)";
  }
  // How another call ends, of a method that is not there, which brings this.
  grpc::Status Ask(const std::string& authorization, grpc::GenericStub* stub) {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    auto call = stub->PrepareCall(&context, "/no/Method", &replies_);
    call->StartCall(nullptr);
    Wait();
    grpc::Status status;
    call->Finish(&status, nullptr);
    Wait();
    return status;
  }
  grpc::StatusCode AskWith(const std::string& authorization) {
    return Ask(authorization, stub_.get()).error_code();
  }
  grpc::Status End() {
    grpc::Status status;
    stream_->Finish(&status, nullptr);
    Wait();
    return status;
  }

  testing::TempDir directory_;
  const std::string unix_socket_ = "unix:" + directory_ / "socket";
  ServerCall::Service service_;
  std::unique_ptr<CallQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  grpc::CompletionQueue replies_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
};

TEST_F(ServerCallTest, AnUnknownMethodIsUnimplementedAndNamed) {
  Serve();
  Call("/a.B/C");
  const grpc::Status status = End();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_NE(status.error_message().find("/a.B/C"), std::string::npos);
}

TEST_F(ServerCallTest, ACallWithoutARequestIsInvalid) {
  AddMethod("/a.B/C", UINT64_MAX);
  Serve();
  Call("/a.B/C");
  stream_->WritesDone(nullptr);
  Wait();
  EXPECT_EQ(End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerCallTest, OneAnswerInOnePiece) {
  auto begun = AddMethod("/a.B/C", UINT64_MAX);
  Serve();
  Call("/a.B/C");
  Send("x");
  begun.get()->PushAndClose(MakeText("answer"));
  EXPECT_EQ(Read(), "answer");
  EXPECT_EQ(Read(), "(the end)");
  EXPECT_TRUE(End().ok());
}

TEST_F(ServerCallTest, WhatWaitsIsJoinedAndNothingIsLost) {
  auto begun = AddMethod("/a.B/C", UINT64_MAX);
  Serve();
  Call("/a.B/C");
  Send("x");
  auto call = begun.get();
  std::string all, read;
  int messages = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string piece = std::to_string(i) + " ";
    all += piece;
    call->Push(MakeText(piece));
  }
  call->Close({grpc::StatusCode::ABORTED, "done"});
  call->Push(MakeText("never"));
  for (std::string text = Read(); text != "(the end)"; text = Read()) {
    read += text;
    ++messages;
  }
  EXPECT_EQ(read, all);
  EXPECT_LT(messages, 1000);
  EXPECT_EQ(End().error_code(), grpc::StatusCode::ABORTED);
}

TEST_F(ServerCallTest, AClientThatReadsLateIsToldOfWhenItHasCaughtUp) {
  constexpr size_t kPiece = 256 << 10, kPieces = 64;
  auto begun = AddMethod("/a.B/C", 2 * kPiece);
  Serve();
  Call("/a.B/C");
  Send("x");
  auto call = begun.get();
  // The client's window takes 4 MiB of the 16 before it reads.
  for (size_t i = 0; i < kPieces; ++i) call->Push(MakeText(std::string(kPiece, 'a')));
  EXPECT_GT(call->buffered(), 2 * kPiece);
  while (call->drained.try_acquire()) {
  }
  size_t read = 0;
  while (read < kPiece * kPieces) read += Read().size();
  call->drained.acquire();
  call->Close(grpc::Status::OK);
  EXPECT_TRUE(End().ok());
}

TEST_F(ServerCallTest, AClientThatLeavesIsToldOfOnce) {
  auto begun = AddMethod("/a.B/C", UINT64_MAX);
  Serve();
  Call("/a.B/C");
  Send("x");
  auto call = begun.get();
  context_.TryCancel();
  End();
  call->cancelled.get_future().wait();  // a second time would throw
  call->Push(MakeText("to nobody"));
  EXPECT_EQ(call->buffered(), 0u);
  call->Close(grpc::Status::OK);
}

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

TEST_F(ServerCallTest, WhoKeepsTheReplyKeepsNothingOfACallWhoseClientHasGone) {
  EventLoop loop;
  std::vector<Reply<Text>> kept;
  service_.methods["/a.B/C"] = Unary<Text, Text>(&loop, [&](const Text&, Reply<Text> reply) {
    kept.push_back(std::move(reply));
    loop.Stop();
  });
  Serve();
  Call("/a.B/C");
  Send("x");
  loop.Run();
  EXPECT_EQ(*service_.calls, 1u);
  context_.TryCancel();
  End();
  while (*service_.calls != 0) std::this_thread::yield();
  ASSERT_EQ(kept.size(), 1u);
  kept[0](MakeText("to nobody"));
}

TEST_F(ServerCallTest, RefusesCallsWhenThereIsNobodyToAnswer) {
  AddMethod("/a.B/C", UINT64_MAX);
  service_.refusing = true;
  Serve();
  Call("/a.B/C");
  Send("x");
  EXPECT_EQ(End().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServerCallTest, MoreCallsThanTheLimitAreRefusedUntilOthersHaveEnded) {
  auto begun = AddMethod("/a.B/C", UINT64_MAX);
  service_.most_calls = 1;
  Serve();
  Call("/a.B/C");
  Send("x");
  auto first = begun.get();
  const grpc::Status refused = Ask("", stub_.get());
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(refused.error_details().find("google.rpc.RetryInfo"), std::string::npos);
  first->Close(grpc::Status::OK);
  EXPECT_TRUE(End().ok());
  first.reset();
  while (*service_.calls != 0) std::this_thread::yield();
  EXPECT_EQ(AskWith(""), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServerCallTest, ACallWithoutTheTokenIsRefusedBeforeItIsLookedAt) {
  service_.token = "0123456789abcdef";  // over a socket pair: a peer that is not known to be local
  Serve();
  for (const char* given : {"", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0",
                            "Basic 0123456789abcdef", "0123456789abcdef"}) {
    EXPECT_EQ(AskWith(given), grpc::StatusCode::UNAUTHENTICATED) << given;
  }
  EXPECT_EQ(AskWith("Bearer 0123456789abcdef"), grpc::StatusCode::UNIMPLEMENTED);
}

// HTTP/2: the preface, empty settings, and so many calls without a token, of which nothing ends.
std::string BareCalls(int count) {
  const auto frame = [](char kind, char flags, uint32_t stream, const std::string& payload) {
    std::string bytes = {0, 0, static_cast<char>(payload.size()), kind, flags};
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(stream >> shift);
    return bytes + payload;
  };
  std::string fields;
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{":method", "POST"},
                                                        {":scheme", "http"},
                                                        {":authority", "x"},
                                                        {":path", "/a.B/C"},
                                                        {"te", "trailers"},
                                                        {"content-type", "application/grpc"}}) {
    fields += std::string(1, '\0') + static_cast<char>(name.size()) + name +
              static_cast<char>(value.size()) + value;
  }
  std::string bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "");
  for (int i = 0; i < count; ++i) bytes += frame(1, 4, 2 * i + 1, fields);
  return bytes;
}

TEST_F(ServerCallTest, RefusalsThatNobodyReadsTakeNobodysRoom) {
  service_.token = "0123456789abcdef";
  service_.most_calls = 16;
  Serve();
  const UniqueFd stranger = Connect();
  const std::string calls = BareCalls(1000);
  for (size_t at = 0; at < calls.size();) {
    const ssize_t sent = ::write(stranger.get(), &calls[at], calls.size() - at);
    ASSERT_GT(sent, 0);
    at += static_cast<size_t>(sent);
  }
  while (*service_.refused + *service_.calls < 256) std::this_thread::yield();
  EXPECT_EQ(*service_.calls, 0u);
  EXPECT_EQ(AskWith("Bearer 0123456789abcdef"), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(AskWith(""), grpc::StatusCode::CANCELLED);        // in short
  while (*service_.refused > 256) std::this_thread::yield();  // nothing of the others is kept
}

TEST_F(ServerCallTest, TheUnixSocketHasRoomOfItsOwn) {
  Serve();
  grpc::GenericStub beside(grpc::CreateChannel(unix_socket_, grpc::InsecureChannelCredentials()));
  const auto code = [&] { return Ask("", &beside).error_code(); };
  *service_.calls = service_.most_calls;
  EXPECT_EQ(AskWith(""), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(code(), grpc::StatusCode::UNIMPLEMENTED);
  while (*service_.calls != service_.most_calls) std::this_thread::yield();
  *service_.calls = service_.most_calls + 1024;
  EXPECT_EQ(code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

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

TEST_F(ServerCallTest, AMethodsNameIsCutInTheMessage) {
  Serve();
  Call("/a.B/" + std::string(4000, '\x7f'));
  EXPECT_EQ(End().error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServerCallTest, ShutdownEndsWhatIsOpen) {
  auto begun = AddMethod("/a.B/C", UINT64_MAX);
  Serve();
  Call("/a.B/C");
  Send("x");
  auto call = begun.get();
  Shutdown();
  call->cancelled.get_future().wait();
  call->Push(MakeText("to nobody"));
  EXPECT_FALSE(End().ok());
}

}  // namespace
}  // namespace switchyard::supervisor
