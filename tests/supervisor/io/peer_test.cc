#include "supervisor/peer.h"

#include <gtest/gtest.h>
#include <unistd.h>

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
