// When systemd's watchdog is told, with a router in the same world as router_test.

#include "supervisor/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

// In systemd's place.
class Listener {
 public:
  Listener() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "@switchyard-test-" + std::to_string(::getpid());
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    bound_ = ::bind(socket_, reinterpret_cast<const sockaddr*>(&address), length) == 0;
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
    ::setenv("WATCHDOG_USEC", "30000000", 1);
    ::unsetenv("WATCHDOG_PID");
  }
  ~Listener() {
    ::unsetenv("NOTIFY_SOCKET");
    ::unsetenv("WATCHDOG_USEC");
    ::close(socket_);
  }
  bool bound() const { return bound_; }
  // How often the watchdog was told since the last time.
  int Pets() {
    int pets = 0;
    char buffer[4096];
    for (ssize_t n = 0; (n = ::recv(socket_, buffer, sizeof buffer, 0)) >= 0;) {
      pets += std::string(buffer, static_cast<size_t>(n)) == "WATCHDOG=1" ? 1 : 0;
    }
    return pets;
  }

 private:
  int socket_;
  bool bound_ = false;
};

class ServiceManagerTest : public RouterFixture {
 protected:
  // Little by little, as the socket takes a few messages only.
  int PetsWithin(int seconds) {
    int pets = 0;
    for (; seconds > 0; --seconds) {
      h_->RunFor(kSecond);
      pets += systemd_.Pets();
    }
    return pets;
  }

  Listener systemd_;
};

TEST_F(ServiceManagerTest, OneThatWasStuckTellsTheWatchdogAsSoonAsItIsNot) {
  ASSERT_TRUE(systemd_.bound());
  options_.probe_interval = 10 * kSecond;
  Begin(150 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.submits == 1; }));
  h_->RunFor(kSecond);
  h_->world.timers.Jump(11 * kSecond);
  ServiceManager manager(&h_->world.timers, h_->router.get());
  manager.Ready();
  ASSERT_NE(h_->router->Stuck(), "");
  EXPECT_EQ(systemd_.Pets(), 0);
  EXPECT_EQ(PetsWithin(2), 1);  // of the 15 s that are left
  EXPECT_EQ(h_->router->Stuck(), "");
  EXPECT_EQ(PetsWithin(28), 1) << "from then on it is twice in the time, as ever";
}

}  // namespace
}  // namespace switchyard::supervisor
