// Masters and the service manager that keeps them, with real memfds and a real socket.

#include "supervisor/host_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/master_seals.h"
#include "supervisor/adoption.h"
#include "tests/support/fake_service_manager.h"
#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kImage = 8192;
constexpr char kStore[] = "FDSTORE=1\nFDNAME=";
constexpr char kRemove[] = "FDSTOREREMOVE=1\nFDNAME=";

UniqueFd Memfd(uint64_t bytes, bool sealed) {
  UniqueFd fd(::memfd_create("host_store_test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_TRUE(!sealed || SealMaster(fd.get()).ok());
  return fd;
}

std::string NameOf(const std::string& model) { return MasterName(model, "key-" + model, kImage); }

std::vector<ModelEntry> Catalog() {
  std::vector<ModelEntry> catalog(2);
  for (size_t i = 0; i < catalog.size(); ++i) {
    catalog[i].model.set_name(i == 0 ? "a" : "b");
    catalog[i].plan.set_image_bytes(kImage);
    catalog[i].plan.set_image_key("key-" + catalog[i].model.name());
  }
  return catalog;
}

ino_t Inode(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? info.st_ino : 0;
}

class HostStoreTest : public ::testing::Test {
 protected:
  std::map<std::string, uint64_t> Adopt(std::string name, UniqueFd fd, uint64_t budget = 1 << 20) {
    std::vector<StoredDescriptor> stored;
    stored.push_back({std::move(fd), std::move(name)});
    return store_.Adopt(std::move(stored), Catalog(), budget);
  }
  // Nothing of it is left, and the service manager was told so, if the name can be told.
  void ExpectDropped(const std::string& name, UniqueFd fd, bool told = true) {
    EXPECT_TRUE(Adopt(name, std::move(fd)).empty()) << name;
    EXPECT_EQ(store_.size(), 0u);
    const auto heard = manager_.Heard();
    ASSERT_EQ(heard.size(), told ? 1u : 0u) << name;
    for (const auto& message : heard) EXPECT_EQ(message.text, kRemove + name);
  }

  testing::FakeServiceManager manager_;
  HostStore store_;
};

TEST_F(HostStoreTest, AMasterIsKeptOnceItIsComplete) {
  const auto id = store_.Create("a", kImage);
  ASSERT_TRUE(id.ok());
  EXPECT_TRUE(manager_.Heard().empty());
  store_.Keep(*id, "a", "key-a");
  auto heard = manager_.Heard();
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].text, kStore + NameOf("a"));
  EXPECT_EQ(Inode(heard[0].fd.get()), Inode(*store_.Find(*id)));
  store_.Close(*id);
  heard = manager_.Heard();
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].text, kRemove + NameOf("a"));
  EXPECT_FALSE(store_.Find(*id).ok());
}

// Whether the service manager, told to let go of it, holds the last descriptor.
TEST_F(HostStoreTest, AMasterIsFreedWhenTheServiceManagerHasLetGoOfIt) {
  std::promise<uint64_t> freed;
  auto answer = freed.get_future();
  HostStore store([&](uint64_t master_id) { freed.set_value(master_id); });
  const auto id = store.Create("a", kImage);
  store.Keep(*id, "a", "key-a");
  store.Close(*id);
  auto told = manager_.HeardWithBarrier();
  EXPECT_EQ(answer.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  told.clear();
  EXPECT_EQ(answer.get(), *id);
}

TEST_F(HostStoreTest, AMasterThatIsLeftIsFreedHere) {
  std::promise<uint64_t> freed;
  HostStore store([&](uint64_t master_id) { freed.set_value(master_id); });
  const auto id = store.Create("a", kImage);
  store.Leave(*id);
  EXPECT_EQ(freed.get_future().get(), *id);
}

TEST_F(HostStoreTest, NobodyIsToldOfOneThatWasNotKept) {
  const auto filling = store_.Create("a", kImage), nameless = store_.Create("b", kImage);
  ASSERT_TRUE(filling.ok() && nameless.ok());
  store_.Keep(*nameless, "b", "");
  store_.Close(*filling);
  store_.Close(*nameless);
  EXPECT_TRUE(manager_.Heard().empty());
}

TEST_F(HostStoreTest, OneThatIsLeftStaysKept) {
  const auto id = store_.Create("a", kImage);
  store_.Keep(*id, "a", "key-a");
  manager_.Heard();
  store_.Leave(*id);
  EXPECT_TRUE(manager_.Heard().empty());
  EXPECT_EQ(store_.size(), 0u);
}

TEST_F(HostStoreTest, WhatWasKeptIsAMasterAgain) {
  UniqueFd fd = Memfd(kImage, true);
  const ino_t inode = Inode(fd.get());
  const auto adopted = Adopt(NameOf("a"), std::move(fd));
  ASSERT_EQ(adopted.count("a"), 1u);
  EXPECT_EQ(Inode(*store_.Find(adopted.at("a"))), inode);
  EXPECT_NE(*store_.Create("b", kImage), adopted.at("a"));
  manager_.Heard();
  store_.Close(adopted.at("a"));
  const auto heard = manager_.Heard();
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].text, kRemove + NameOf("a"));
}

TEST_F(HostStoreTest, WhatIsNotAMasterIsDropped) {
  const std::string a = NameOf("a");
  ExpectDropped(a, Memfd(kImage - 4096, true));
  ExpectDropped(a, Memfd(kImage, false));
  ExpectDropped(a, UniqueFd());
  auto pipe = Pipe();
  ExpectDropped(a, std::move(pipe->first));
  ExpectDropped(a, UniqueFd(::open("/dev/null", O_RDONLY)));
  ExpectDropped(a, UniqueFd(::open("/", O_PATH)));
  const UniqueFd open = Memfd(kImage, false);
  UniqueFd blind(::open(absl::StrCat("/proc/self/fd/", open.get()).c_str(), O_WRONLY));
  ASSERT_TRUE(SealMaster(open.get()).ok());
  ExpectDropped(a, std::move(blind));
  testing::TempDir directory;
  const std::string path = directory / "file";
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(::ftruncate(file.get(), kImage), 0);
  ExpectDropped(a, std::move(file));
  ExpectDropped(MasterName("a", "key-of-before", kImage), Memfd(kImage, true));
  ExpectDropped("stored", Memfd(kImage, true));
  // Such names would be another message.
  ExpectDropped("", Memfd(kImage, true), false);
  ExpectDropped("x\nSTOPPING=1", Memfd(kImage, true), false);
  ExpectDropped(std::string(300, 'x'), Memfd(kImage, true), false);
}

// A name is removed with all that has it.
TEST_F(HostStoreTest, OneThatHasTheNameOfARefusedOneIsKeptAnew) {
  std::vector<StoredDescriptor> stored;
  stored.push_back({Memfd(kImage, true), NameOf("a")});
  stored.push_back({Memfd(1, true), NameOf("a")});
  const ino_t inode = Inode(stored[0].fd.get());
  ASSERT_EQ(store_.Adopt(std::move(stored), Catalog(), 1 << 20).count("a"), 1u);
  const auto heard = manager_.Heard();
  ASSERT_EQ(heard.size(), 2u);
  EXPECT_EQ(heard[0].text, kRemove + NameOf("a"));
  EXPECT_EQ(heard[1].text, kStore + NameOf("a"));
  EXPECT_EQ(Inode(heard[1].fd.get()), inode);
}

TEST_F(HostStoreTest, WithoutAServiceManagerNothingChanges) {
  ::unsetenv("NOTIFY_SOCKET");
  const auto id = store_.Create("a", kImage);
  store_.Keep(*id, "a", "key-a");
  store_.Close(*id);
  EXPECT_EQ(store_.size(), 0u);
  EXPECT_TRUE(manager_.Heard().empty());
}

// ---- What LISTEN_* says. Descriptors from 3 on are the test's own: the tests here name none, or
// none that is open.

class TakeStoredTest : public ::testing::Test {
 protected:
  size_t Taken(const std::string& count, std::optional<std::string> names,
               const std::string& pid = std::to_string(::getpid())) {
    ::setenv("LISTEN_PID", pid.c_str(), 1);
    ::setenv("LISTEN_FDS", count.c_str(), 1);
    if (names) ::setenv("LISTEN_FDNAMES", names->c_str(), 1);
    const size_t taken = TakeStoredDescriptors().size();
    EXPECT_EQ(::getenv("LISTEN_PID"), nullptr);
    EXPECT_EQ(::getenv("LISTEN_FDS"), nullptr);
    EXPECT_EQ(::getenv("LISTEN_FDNAMES"), nullptr);
    return taken;
  }
};

TEST_F(TakeStoredTest, WhatMakesNoSenseIsNothingAndGoesFromTheEnvironment) {
  EXPECT_TRUE(TakeStoredDescriptors().empty());
  EXPECT_EQ(Taken("0", ""), 0u);
  EXPECT_EQ(Taken("1", "a", "1"), 0u) << "for another process";
  EXPECT_EQ(Taken("one", "a"), 0u);
  EXPECT_EQ(Taken("-1", "a"), 0u);
  EXPECT_EQ(Taken("99999999999", std::nullopt), 0u);
  EXPECT_EQ(Taken("60000", std::nullopt), 0u) << "not open";
}

}  // namespace
}  // namespace switchyard::supervisor
