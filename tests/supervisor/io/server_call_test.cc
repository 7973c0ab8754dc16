// Calls over a real connection.
#include "supervisor/server_call.h"

#include "supervisor/event_loop.h"
#include "supervisor/server_methods.h"
#include "tests/supervisor/io/server_call_fixture.h"

namespace switchyard::supervisor {
namespace {

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
