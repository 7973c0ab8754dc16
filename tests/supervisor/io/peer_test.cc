#include "supervisor/peer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <optional>

#include "common/unique_fd.h"

namespace switchyard::supervisor {
namespace {

TEST(Peer, IsWhoHoldsTheOtherEnd) {
  auto pair = SocketPair();
  ASSERT_TRUE(pair.ok());
  const auto peer = ReadUnixPeer(pair->first.get());
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->uid, ::geteuid());
  EXPECT_EQ(peer->gid, ::getegid());
  EXPECT_EQ(peer->pid, ::getpid());
  EXPECT_EQ(peer->groups.size(), static_cast<size_t>(::getgroups(0, nullptr)));
  EXPECT_FALSE(ReadUnixPeer(-1).ok());
}

TEST(Peer, OurUserRootAndTheGroupMayConnect) {
  constexpr uid_t kOurs = 1000, kOther = 1001;
  constexpr gid_t kGroup = 50, kOtherGroup = 51;
  EXPECT_TRUE(MayConnect({kOurs, kOtherGroup, 1, {}}, kOurs, kGroup));
  EXPECT_TRUE(MayConnect({0, 0, 1, {}}, kOurs, kGroup));
  EXPECT_TRUE(MayConnect({kOther, kGroup, 1, {}}, kOurs, kGroup));
  EXPECT_TRUE(MayConnect({kOther, kOtherGroup, 1, {7, kGroup}}, kOurs, kGroup));
  EXPECT_FALSE(MayConnect({kOther, kOtherGroup, 1, {7, 8}}, kOurs, kGroup));
}

// Process numbers, and what each is: the parent, and whether it may gain privileges.
class Processes {
 public:
  Processes& Add(pid_t pid, pid_t parent, bool may_gain) {
    facts_[pid] = {parent, may_gain};
    return *this;
  }
  // Ended between two looks: its children are another's from then on.
  Processes& Ends(pid_t pid, pid_t heir) {
    ends_ = pid;
    heir_ = heir;
    return *this;
  }
  bool Ours(pid_t pid) {
    return IsOurWorkers(pid, kUs, [this](pid_t of) -> std::optional<ProcessFacts> {
      if (of == ends_) {
        facts_.erase(of);
        for (auto& [child, facts] : facts_) {
          if (facts.parent == of) facts.parent = heir_;
        }
      }
      const auto found = facts_.find(of);
      if (found == facts_.end()) return std::nullopt;
      return found->second;
    });
  }
  static constexpr pid_t kUs = 100;

 private:
  std::map<pid_t, ProcessFacts> facts_;
  pid_t ends_ = -1, heir_ = 0;
};

TEST(Peer, WorkersAndWhatTheyStartAreOurs) {
  Processes all;
  all.Add(100, 1, true).Add(200, 100, false).Add(300, 200, false).Add(301, 300, false);
  for (pid_t pid : {100, 200, 300, 301}) EXPECT_TRUE(all.Ours(pid)) << pid;
  all.Add(400, 100, false);  // it was left behind, and came to us
  EXPECT_TRUE(all.Ours(400));
}

TEST(Peer, ClientsAreNot) {
  Processes all;
  all.Add(1, 0, true).Add(100, 1, false).Add(500, 1, false).Add(501, 500, false);
  for (pid_t pid : {0, 1, 500, 501}) EXPECT_FALSE(all.Ours(pid)) << pid;
  // Of one who started us, or whom the container's first process, which we are, has taken in.
  all.Add(600, 100, true).Add(601, 600, false);
  for (pid_t pid : {600, 601}) EXPECT_FALSE(all.Ours(pid)) << pid;
}

TEST(Peer, WhoCannotBeToldIsOurs) {
  Processes all;
  EXPECT_TRUE(all.Ours(700)) << "it has ended";
  for (pid_t pid = 1000; pid < 9000; ++pid) all.Add(pid, pid + 1, false);
  EXPECT_TRUE(all.Ours(1000)) << "too many before it";
}

TEST(Peer, OneThatEndsInBetweenHidesNobody) {
  EXPECT_TRUE(Processes().Add(200, 100, false).Add(300, 200, false).Ends(200, 100).Ours(300));
  EXPECT_FALSE(Processes().Add(200, 150, false).Add(300, 200, false).Ends(200, 1).Ours(300));
}

TEST(Peer, FactsOfAProcess) {
  auto ends = Pipe();
  ASSERT_TRUE(ends.ok());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_NAME, "PPid:\t1", 0, 0, 0);
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)!::write(ends->second.get(), "", 1);
    ::pause();
  }
  char ready;
  ASSERT_EQ(::read(ends->first.get(), &ready, 1), 1);
  const auto facts = ReadProcessFacts(child);
  EXPECT_TRUE(IsOurWorkers(child, ::getpid()));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_TRUE(facts.has_value());
  EXPECT_EQ(facts->parent, ::getpid());
  EXPECT_FALSE(facts->may_gain_privileges);
  EXPECT_FALSE(ReadProcessFacts(child).has_value());
}

TEST(Peer, LocalIsThisMachineAlone) {
  for (const char* local :
       {"unix:", "unix:/run/x", "ipv4:127.0.0.1:4711", "ipv6:[::1]:4711", "ipv6:%5B::1%5D:4711"}) {
    EXPECT_TRUE(IsLocalPeer(local)) << local;
  }
  for (const char* other : {"", "ipv4:10.0.0.1:1", "ipv4:1.127.0.1:1", "ipv6:[2001:db8::1]:1",
                            "ipv6:%5B::1234%5D:1", "unknown"}) {
    EXPECT_FALSE(IsLocalPeer(other)) << other;
  }
  EXPECT_TRUE(IsUnixPeer("unix:"));
  EXPECT_FALSE(IsUnixPeer("ipv4:127.0.0.1:4711"));
}

TEST(Peer, AddressesAreThoseOfTheSocket) {
  EXPECT_EQ(AddressOf("ipv4:127.0.0.1:4711"), "127.0.0.1:4711");
  EXPECT_EQ(AddressOf("ipv6:%5B::1%5D:4711"), "[::1]:4711");
  EXPECT_EQ(AddressOf("ipv6:[fe80::1%25eth0]:1"), "[fe80::1]:1");
  EXPECT_EQ(AddressOf("ipv6:%5Bfe80::1%25eth0%5D:1"), "[fe80::1]:1");
  EXPECT_EQ(AddressOf("unix:/x"), "");
  EXPECT_EQ(AddressOf(""), "");
  EXPECT_EQ(AddressOfPeer(-1), "");
}

}  // namespace
}  // namespace switchyard::supervisor
