#include "supervisor/mount_table.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

constexpr char kTable[] =
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "40 22 0:33 / /models rw,relatime shared:9 master:2 - nfs4 filer:/export/models rw,vers=4.2\n"
    "41 40 0:34 / /models/big\\040ones rw - fuse.sshfs me@host:/a\\134b rw\n"
    "42 22 0:35 / /twice rw - tmpfs first rw\n"
    "43 22 0:36 / /twice rw - tmpfs second rw\n"
    "44 22 0:37 / /cut rw\n"
    "nonsense\n";

TEST(MountTable, TheNearestMountHoldsAPath) {
  const auto mounts = ParseMountTable(kTable);
  EXPECT_EQ(MountOf(mounts, "/home/models"), "ext4 /dev/sda1, mounted at /");
  EXPECT_EQ(MountOf(mounts, "/models/llama"), "nfs4 filer:/export/models, mounted at /models");
  EXPECT_EQ(MountOf(mounts, "/models"), "nfs4 filer:/export/models, mounted at /models");
  EXPECT_EQ(MountOf(mounts, "/modelsaside"), "ext4 /dev/sda1, mounted at /");
  EXPECT_EQ(MountOf(mounts, "/twice/a"), "tmpfs second, mounted at /twice");
  EXPECT_EQ(MountOf(mounts, "/cut/a"), "ext4 /dev/sda1, mounted at /");
}

TEST(MountTable, EscapesAreUndone) {
  EXPECT_EQ(MountOf(ParseMountTable(kTable), "/models/big ones/a"),
            "fuse.sshfs me@host:/a\\b, mounted at /models/big ones");
}

TEST(MountTable, NoTableIsNoAnswer) {
  EXPECT_EQ(MountOf(ParseMountTable(""), "/a"), "");
  EXPECT_NE(MountOf("/"), "") << "there is a root here";
}

}  // namespace
}  // namespace switchyard::supervisor
