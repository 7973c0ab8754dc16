// Connections that must prove themselves, over TCP as gRPC sees it.
#include "supervisor/connection_count.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "supervisor/accept_loop.h"
#include "supervisor/listen.h"
#include "supervisor/server.h"
#include "supervisor/server_call.h"

namespace switchyard::supervisor {
namespace {

class ConnectionCountTest : public ::testing::TestWithParam<const char*> {
 protected:
  void Start(Nanos proves_within, Nanos idle = 15 * 60 * kSecond) {
    address_.host = GetParam();
    auto listener = ListenTcp(&address_);
    if (!listener.ok()) GTEST_SKIP() << listener.status();
    auto server = Server::Create({}, idle);
    ASSERT_TRUE(server.ok());
    server_ = *std::move(server);
    AcceptLoop::Options options;
    options.proves_within = proves_within;
    accept_ = std::make_unique<AcceptLoop>(
        &loop_, *std::move(listener), options, &connections_,
        [this](UniqueFd fd) { server_->AddTcpConnection(std::move(fd)); });
  }
  // A client that speaks HTTP/2, and says no more.
  UniqueFd Connect() {
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    v4.sin_family = AF_INET;
    v6.sin6_family = AF_INET6;
    v4.sin_port = v6.sin6_port = htons(address_.port);
    const bool is_v4 = ::inet_pton(AF_INET, address_.host.c_str(), &v4.sin_addr) == 1;
    ::inet_pton(AF_INET6, address_.host.c_str(), &v6.sin6_addr);
    UniqueFd fd(::socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto* to = is_v4 ? reinterpret_cast<sockaddr*>(&v4) : reinterpret_cast<sockaddr*>(&v6);
    EXPECT_EQ(::connect(fd.get(), to, is_v4 ? sizeof(v4) : sizeof(v6)), 0);
    const std::string preface =
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\4\0\0\0\0\0", 9);
    EXPECT_EQ(::write(fd.get(), preface.data(), preface.size()),
              static_cast<ssize_t>(preface.size()));
    return fd;
  }
  // Reads until the server ends the connection.
  void ReadToTheEnd(const UniqueFd& client) {
    std::thread reader([&] {
      char bytes[4096];
      while (::read(client.get(), bytes, sizeof(bytes)) > 0) {
      }
      loop_.Post([this] { loop_.Stop(); });
    });
    loop_.Run();
    reader.join();
  }

  HostPort address_{"127.0.0.1", 0};
  EventLoop loop_;
  ConnectionCount connections_{&loop_};
  std::unique_ptr<Server> server_;
  std::unique_ptr<AcceptLoop> accept_;
};

TEST_P(ConnectionCountTest, WhoProvesNothingIsShutDown) {
  Start(kMillisecond);
  const UniqueFd client = Connect();
  ReadToTheEnd(client);
  // Its place is free once gRPC has closed it.
  std::function<void()> wait = [&] { connections_.size() == 0 ? loop_.Stop() : loop_.Post(wait); };
  loop_.Post(wait);
  loop_.Run();
}

TEST_P(ConnectionCountTest, AConnectionWithoutACallIsIdleAtLast) {
  Start(0, kMillisecond);
  ReadToTheEnd(Connect());
}

// As one that brings the token, told by the names that gRPC has for it.
TEST_P(ConnectionCountTest, WhoHasProvedItselfStays) {
  address_.host = GetParam();
  auto listener = ListenTcp(&address_);
  if (!listener.ok()) GTEST_SKIP() << listener.status();
  grpc::ServerBuilder builder;
  ServerCall::Service service;
  builder.RegisterAsyncGenericService(&service.generic);
  auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  CallQueue queue(builder.AddCompletionQueue());
  auto server = builder.BuildAndStart();
  std::atomic<int> calls = 0;
  service.proved = [&](const std::string& peer) {
    ++calls;
    connections_.Proved(peer);
  };
  ServerCall::Accept(&queue, &service);
  AcceptLoop::Options options;
  options.proves_within = 200 * kMillisecond;
  AcceptLoop accept(&loop_, *std::move(listener), options, &connections_, [&](UniqueFd fd) {
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
    parameters.fd = fd.Release();
    acceptor->HandleNewConnection(&parameters);
  });
  std::thread client([&] {
    auto channel =
        grpc::CreateChannel(FormatHostPort(address_), grpc::InsecureChannelCredentials());
    grpc::GenericStub stub(channel);
    grpc::CompletionQueue replies;
    grpc::ClientContext context;
    auto call = stub.PrepareCall(&context, "/no/Method", &replies);
    call->StartCall(nullptr);
    void* tag;
    bool ok;
    replies.Next(&tag, &ok);
    grpc::Status status;
    call->Finish(&status, nullptr);
    replies.Next(&tag, &ok);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
    // Another one, that proves nothing and is shut down later, tells that its time is over.
    const UniqueFd stranger = Connect();
    char byte;
    while (::read(stranger.get(), &byte, 1) > 0) {
    }
    EXPECT_EQ(channel->GetState(false), GRPC_CHANNEL_READY);
    loop_.Post([&] {
      EXPECT_EQ(calls, 1);
      loop_.Stop();
    });
    replies.Shutdown();
    while (replies.Next(&tag, &ok)) {
    }
  });
  loop_.Run();
  client.join();
  service.deadlines.Stop();
  server->Shutdown(std::chrono::system_clock::now());
  queue.Stop();
}

INSTANTIATE_TEST_SUITE_P(Loopback, ConnectionCountTest, ::testing::Values("127.0.0.1", "::1"));

}  // namespace
}  // namespace switchyard::supervisor
