#pragma once

// A client and the queue that serves it, over a real connection, with methods made up here.

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
#include "rpc/message_bytes.h"
#include "supervisor/server_call.h"
#include "supervisor/server_stream.h"
#include "switchyard/v1/inference.pb.h"
#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {

using Text = v1::TokenizeRequest;  // any message with a string

inline Text MakeText(const std::string& text) {
  Text message;
  message.set_text(text);
  return message;
}

inline Merged Join(Text* waiting, Text* next) {
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

}  // namespace switchyard::supervisor
