#include "supervisor/accept_loop.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "supervisor/listen.h"
#include "supervisor/peer.h"

namespace switchyard::supervisor {
namespace {

class AcceptLoopTest : public ::testing::Test {
 protected:
  void Start(AcceptLoop::Options options) {
    auto listener = ListenTcp(&address_);
    ASSERT_TRUE(listener.ok());
    accept_ = std::make_unique<AcceptLoop>(&loop_, *std::move(listener), options, &connections_,
                                           [this](UniqueFd fd) {
                                             accepted_.push_back(std::move(fd));
                                             if (accepted_.size() == stop_at_) loop_.Stop();
                                           });
  }

  UniqueFd Connect() {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(address_.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }

  // Which of them the other side has ended.
  static std::vector<bool> Ended(const std::vector<UniqueFd>& clients) {
    std::vector<bool> ended;
    char byte;
    for (const UniqueFd& client : clients) {
      ended.push_back(::recv(client.get(), &byte, 1, MSG_DONTWAIT) == 0);
    }
    return ended;
  }

  HostPort address_{"127.0.0.1", 0};
  EventLoop loop_;
  ConnectionCount connections_{&loop_};
  std::unique_ptr<AcceptLoop> accept_;
  std::vector<UniqueFd> accepted_;
  size_t stop_at_ = 0;
};

TEST_F(AcceptLoopTest, ClosesWhatIsBeyondTheLimit) {
  Start({false, 2});
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(Connect());
  // The third is closed by the other side: its end of file is what to wait for.
  auto refused = loop_.WatchReadable(clients[2].get(), [&] { loop_.Stop(); });
  loop_.Run();
  EXPECT_EQ(accepted_.size(), 2u);
  EXPECT_EQ(connections_.size(), 2u);
}

TEST(AcceptLoop, TakesAsManyAsThereAreDescriptorsFor) {
  EXPECT_EQ(AcceptLoop::MostConnections(0), 16u);
  EXPECT_EQ(AcceptLoop::MostConnections(256), 16u);
  EXPECT_EQ(AcceptLoop::MostConnections(416), 16u);
  EXPECT_EQ(AcceptLoop::MostConnections(1024), 320u);
  EXPECT_EQ(AcceptLoop::MostConnections(2430), 1023u);
  EXPECT_EQ(AcceptLoop::MostConnections(2432), 1024u);
  EXPECT_EQ(AcceptLoop::MostConnections(RLIM_INFINITY), 1024u);
}

TEST_F(AcceptLoopTest, AConnectionThatHasEndedMakesRoom) {
  Start({false, 1});
  std::vector<UniqueFd> clients;
  clients.push_back(Connect());
  stop_at_ = 2;
  // Each end closes, as gRPC does it; then the next client comes in.
  std::function<void()> wait_for_room = [&] {
    if (connections_.size() == 0) {
      clients.push_back(Connect());
    } else {
      loop_.Post(wait_for_room);
    }
  };
  std::function<void()> wait_for_first = [&] {
    if (accepted_.empty()) return loop_.Post(wait_for_first);
    EXPECT_EQ(connections_.size(), 1u);
    clients[0].Reset();
    ::shutdown(accepted_[0].get(), SHUT_RDWR);
    accepted_[0].Reset();
    loop_.Post(wait_for_room);
  };
  loop_.Post(wait_for_first);
  loop_.Run();
  EXPECT_EQ(accepted_.size(), 2u);
}

// From another thread than the loop's: after a while this is so.
void AwaitOn(EventLoop& loop, std::function<bool()> is_so) {
  std::promise<void> done;
  std::function<void()> look = [&] { is_so() ? done.set_value() : loop.Post(look); };
  loop.Post(look);
  done.get_future().wait();
}

TEST_F(AcceptLoopTest, StrangersAreInEachOthersWayAlone) {
  AcceptLoop::Options options;
  options.max_connections = 8;
  options.proves_within = 3600 * kSecond;
  ASSERT_EQ(AcceptLoop::MostUnproved(8), 2u);
  Start(options);
  std::vector<UniqueFd> clients;
  const auto connect = [&](bool proves) {
    clients.push_back(Connect());
    AwaitOn(loop_, [&] {
      if (accepted_.size() < clients.size()) return false;
      if (proves) connections_.Proved("ipv4:" + AddressOfPeer(accepted_.back().get()));
      return true;
    });
  };
  std::thread thread([&] {
    for (bool proves : {true, true, false, false, false, false}) connect(proves);
    EXPECT_EQ(Ended(clients), (std::vector<bool>{false, false, true, true, false, false}));
    EXPECT_EQ(connections_.size(), 4u);
    EXPECT_EQ(connections_.unproved(), 2u);
    // Clients may have all of it, and the last place of a stranger.
    for (int i = 0; i < 6; ++i) connect(true);
    EXPECT_EQ(connections_.size(), 8u);
    EXPECT_EQ(connections_.unproved(), 0u);
    clients.push_back(Connect());
    char byte;
    EXPECT_EQ(::recv(clients.back().get(), &byte, 1, 0), 0);
    EXPECT_EQ(accepted_.size(), 12u);
    EXPECT_EQ(connections_.size(), 8u);
    loop_.Post([&] { loop_.Stop(); });
  });
  loop_.Run();
  thread.join();
}

TEST_F(AcceptLoopTest, GoesOnAfterItRanOutOfDescriptors) {
  Start({false, 100});
  std::vector<UniqueFd> clients;
  clients.push_back(Connect());
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 0;  // every new descriptor fails, but what is open stays open
  // The reserve's number is no use under a limit of 0: the connection stays in the queue, and is
  // accepted when there is room again.
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  stop_at_ = 1;
  loop_.Start(20 * kMillisecond, [&] {
    EXPECT_TRUE(accepted_.empty());
    ::setrlimit(RLIMIT_NOFILE, &before);
  });
  loop_.Run();
  EXPECT_EQ(accepted_.size(), 1u);
}

}  // namespace
}  // namespace switchyard::supervisor
