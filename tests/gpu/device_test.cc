// The worker's device on a GPU: what is released is really free, masters arrive whole and fast, a
// residency grows, shrinks and grows again.

#include <cuda_runtime.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "worker/device/cuda_device.h"
#include "worker/device/host_buffer.h"
#include "worker/device/residency.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

uint64_t FreeBytes() {
  size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  return free;
}

// As the supervisor's: filled by one mapping, sealed, and mapped read-only.
class SealedMaster {
 public:
  explicit SealedMaster(uint64_t bytes)
      : bytes_(bytes), fd_(memfd_create("master", MFD_ALLOW_SEALING)) {
    EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(bytes)), 0);
    auto* words =
        static_cast<uint64_t*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    std::vector<std::thread> threads;
    const uint64_t count = bytes / 8, part = count / 8;
    for (uint64_t begin = 0; begin < count; begin += part) {
      threads.emplace_back([=] {
        for (uint64_t i = begin; i < std::min(count, begin + part); ++i) {
          words[i] = i * 0x9E3779B97F4A7C15u;
        }
      });
    }
    for (std::thread& each : threads) each.join();
    munmap(words, bytes);
    EXPECT_EQ(fcntl(fd_, 1033 /* F_ADD_SEALS */, 0x0002 | 0x0004 | 0x0010), 0);
    data_ = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd_, 0);
    EXPECT_NE(data_, MAP_FAILED);
  }
  ~SealedMaster() {
    munmap(data_, bytes_);
    close(fd_);
  }
  const std::byte* data() const { return static_cast<const std::byte*>(data_); }

 private:
  uint64_t bytes_;
  int fd_;
  void* data_ = nullptr;
};

class GpuDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
      GTEST_SKIP() << "no GPU to test on";
    device_ = MakeCudaDevice();
  }
  // Grows or shrinks, and waits until it has.
  static absl::Status Settle(Residency& residency, uint64_t bytes) {
    absl::Status status = residency.SetTarget(bytes);
    while (status.ok() && !residency.settled()) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return status.ok() ? residency.error() : status;
  }
  void ExpectSame(const std::byte* device, const std::byte* host, uint64_t bytes) {
    auto back = HostBuffer::Create(*device_, bytes);
    ASSERT_TRUE(back.ok()) << back.status();
    ASSERT_TRUE(device_->Download((*back)->data(), device, bytes, device_->compute_stream()).ok());
    ASSERT_TRUE(device_->Synchronize(device_->compute_stream()).ok());
    EXPECT_EQ(std::memcmp((*back)->data(), host, bytes), 0);
  }
  std::unique_ptr<Device> device_;
};

TEST_F(GpuDeviceTest, ReleasedMemoryIsFree) {
  auto arena = device_->Reserve(1024 * kMiB);
  ASSERT_TRUE(arena.ok()) << arena.status();
  const uint64_t before = FreeBytes();
  ASSERT_TRUE((*arena)->Commit(0, 256 * kMiB).ok());
  ASSERT_TRUE((*arena)->Commit(512 * kMiB, 64 * kMiB).ok());
  EXPECT_EQ((*arena)->committed_bytes(), 320 * kMiB);
  EXPECT_LE(FreeBytes(), before - 320 * kMiB);
  EXPECT_EQ(cudaMemset((*arena)->base() + 512 * kMiB, 1, 64 * kMiB), cudaSuccess);
  ASSERT_TRUE((*arena)->Release(0, 256 * kMiB).ok());
  EXPECT_GE(FreeBytes(), before - 66 * kMiB);
  ASSERT_TRUE((*arena)->Commit(0, 2 * kMiB).ok()) << "the address is free again";
  arena->reset();
  EXPECT_GE(FreeBytes(), before - 2 * kMiB);
}

TEST_F(GpuDeviceTest, WhatDoesNotFitIsRefusedAndNothingIsTaken) {
  auto arena = device_->Reserve(4096 * 1024 * kMiB);
  ASSERT_TRUE(arena.ok()) << arena.status();
  const uint64_t before = FreeBytes();
  const absl::Status status = (*arena)->Commit(0, 2048 * 1024 * kMiB);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ((*arena)->committed_bytes(), 0);
  EXPECT_EQ(FreeBytes(), before);
  EXPECT_TRUE((*arena)->Commit(0, 2 * kMiB).ok()) << "the device works as before";
}

TEST_F(GpuDeviceTest, FixedBuffersAreZeroedWholePages) {
  auto buffer = device_->Allocate(3 * kMiB);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  const std::vector<std::byte> zeros(4 * kMiB);
  ExpectSame(static_cast<std::byte*>((*buffer)->data()), zeros.data(), zeros.size());
}

// Whatever copies them: the device's threads, by pieces of 16 bytes, 4 or 1, or the copy engine.
TEST_F(GpuDeviceTest, AnyNumberOfBytesArrivesWhole) {
  auto buffer = device_->Allocate(4 * kMiB);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  auto registered = HostBuffer::Create(*device_, 2 * kMiB);
  ASSERT_TRUE(registered.ok()) << registered.status();
  auto* const to = static_cast<std::byte*>((*buffer)->data());
  for (uint64_t i = 0; i < 2 * kMiB; ++i) (*registered)->data()[i] = std::byte(i * 7 + i / 251);
  const std::vector<std::byte> plain((*registered)->data(), (*registered)->data() + 2 * kMiB);
  const auto expect_whole = [&](const std::byte* from, uint64_t at, uint64_t bytes,
                                StreamHandle stream) {
    ASSERT_EQ(cudaMemset(to, 0xEE, 2 * kMiB), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_TRUE(device_->Upload(to + at, from + at, bytes, stream).ok());
    ASSERT_TRUE(device_->Synchronize(stream).ok());
    ExpectSame(to + at, plain.data() + at, bytes);
    const std::byte untouched{0xEE};
    ExpectSame(to + at + bytes, &untouched, 1);
  };
  for (const std::byte* from :
       {static_cast<const std::byte*>((*registered)->data()), plain.data()}) {
    for (const uint64_t bytes : {1, 3, 4, 20, 48, 4100, 65537, 1 << 20, (1 << 20) + 1}) {
      for (const uint64_t at : {0, 1, 4, 16}) {
        expect_whole(from, at, bytes, device_->compute_stream());
        expect_whole(from, at, bytes, device_->reading_stream());
      }
    }
  }
}

// The copy engine would bring them last.
TEST_F(GpuDeviceTest, AStepsInputsDoNotComeBehindWeights) {
  constexpr uint64_t kBytes = 256 * kMiB;
  auto arena = device_->Reserve(kBytes);
  ASSERT_TRUE(arena.ok()) << arena.status();
  ASSERT_TRUE((*arena)->Commit(0, kBytes).ok());
  auto buffer = device_->Allocate(kMiB);
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  const SealedMaster master(kBytes);
  ASSERT_TRUE(device_->RegisterHost(master.data(), kBytes).ok());
  auto inputs = HostBuffer::Create(*device_, kMiB);
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  const auto upload = [&](void* to, const std::byte* from, uint64_t bytes, StreamHandle stream) {
    ASSERT_TRUE(device_->Upload(to, from, bytes, stream).ok());
  };
  upload((*arena)->base(), master.data(), kBytes, device_->copy_stream());  // it is registered
  for (int i = 0; i < 100; ++i) {
    for (uint64_t at = 0; at < kBytes; at += 16 * kMiB) {
      upload((*arena)->base() + at, master.data() + at, 16 * kMiB, device_->copy_stream());
    }
  }
  upload((*buffer)->data(), (*inputs)->data(), 40000, device_->compute_stream());
  ASSERT_TRUE(device_->Synchronize(device_->compute_stream()).ok());
  EXPECT_EQ(cudaStreamQuery(static_cast<cudaStream_t>(device_->copy_stream())), cudaErrorNotReady);
  (void)cudaGetLastError();
  ASSERT_TRUE(device_->Synchronize(device_->copy_stream()).ok());
  ASSERT_TRUE(device_->UnregisterHost(master.data()).ok());
}

TEST_F(GpuDeviceTest, AMasterRegisteredBeforeThereIsAContextArrivesWhole) {
  const uint64_t bytes = 1026 * kMiB;  // slices and a rest
  SealedMaster master(bytes);
  ASSERT_TRUE(device_->RegisterHost(master.data(), bytes).ok());
  auto residency = Residency::Create(*device_, bytes, 64 * kMiB);
  ASSERT_TRUE(residency.ok()) << residency.status();
  (*residency)->SetSource(std::make_shared<MasterSource>(std::span(master.data(), bytes)));
  double start = Now();
  ASSERT_TRUE(Settle(**residency, bytes).ok());
  std::printf("while it is being registered: %.1f GB/s\n", bytes / (Now() - start) / 1e9);
  ExpectSame((*residency)->base(), master.data(), bytes);
  ASSERT_TRUE(Settle(**residency, 256 * kMiB).ok());
  EXPECT_EQ((*residency)->committed_bytes(), 256 * kMiB);
  start = Now();
  ASSERT_TRUE(Settle(**residency, bytes).ok());
  std::printf("registered: %.1f GB/s\n", (bytes - 256 * kMiB) / (Now() - start) / 1e9);
  ExpectSame((*residency)->base(), master.data(), bytes);
  EXPECT_EQ(cudaHostUnregister(const_cast<std::byte*>(master.data())), cudaSuccess)
      << "it was not registered";
  EXPECT_EQ(cudaHostRegister(const_cast<std::byte*>(master.data()), 256 * kMiB,
                             cudaHostRegisterPortable | cudaHostRegisterReadOnly),
            cudaSuccess);
  (*residency)->SetSource(nullptr);
  EXPECT_TRUE(device_->UnregisterHost(master.data()).ok());
  (*residency)->SetSource(std::make_shared<MasterSource>(std::span(master.data(), bytes)));
  ASSERT_TRUE(Settle(**residency, 0).ok());
  ASSERT_TRUE(Settle(**residency, bytes).ok()) << "unregistered memory is copied too";
  ExpectSame((*residency)->base(), master.data(), bytes);
}

// As a pause does it: what the KV of several sequences goes to is made ready while that of the one
// before is copied. The time is a figure only.
TEST_F(GpuDeviceTest, SequencesGoToFreshHostMemoryWhole) {
  constexpr uint64_t kEach = 480 * kMiB, kCount = 8;
  auto kv = device_->Allocate(kEach);
  ASSERT_TRUE(kv.ok()) << kv.status();
  std::vector<std::byte> pattern(kEach);
  for (uint64_t i = 0; i < kEach; i += 64) pattern[i] = std::byte(i / 64 * 7 + i / kMiB);
  ASSERT_EQ(cudaMemcpy((*kv)->data(), pattern.data(), kEach, cudaMemcpyHostToDevice), cudaSuccess);
  std::vector<std::unique_ptr<HostBuffer>> saved;
  const double start = Now();
  for (uint64_t i = 0; i < kCount; ++i) {
    auto host = HostBuffer::Create(*device_, kEach);
    ASSERT_TRUE(host.ok()) << host.status();
    saved.push_back(*std::move(host));
    ASSERT_TRUE(
        device_->Download(saved.back()->data(), (*kv)->data(), kEach, device_->compute_stream())
            .ok());
  }
  ASSERT_TRUE(device_->Synchronize(device_->compute_stream()).ok());
  std::printf("to fresh host memory: %.1f GB/s\n", kCount * kEach / (Now() - start) / 1e9);
  for (const auto& each : saved) EXPECT_EQ(std::memcmp(each->data(), pattern.data(), kEach), 0);
}

// What decides the size of a chunk; figures only.
TEST_F(GpuDeviceTest, TimesOfHandles) {
  constexpr uint64_t kTotal = 32768 * kMiB;
  size_t free = 0, all = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &all), cudaSuccess);
  if (free < kTotal + kTotal / 8) GTEST_SKIP() << "takes 32 GiB";
  for (const uint64_t handle : {2 * kMiB, 64 * kMiB, 256 * kMiB, 1024 * kMiB}) {
    const uint64_t total = handle == 2 * kMiB ? kTotal / 32 : kTotal;
    auto arena = device_->Reserve(total);
    ASSERT_TRUE(arena.ok());
    double start = Now();
    for (uint64_t at = 0; at < total; at += handle) ASSERT_TRUE((*arena)->Commit(at, handle).ok());
    const double commit = Now() - start;
    start = Now();
    ASSERT_TRUE((*arena)->Release(0, total).ok());
    std::printf("handles of %4llu MiB, %llu GiB: commit %.1f ms, release %.1f ms\n",
                (unsigned long long)(handle / kMiB), (unsigned long long)(total / kMiB / 1024),
                commit * 1e3, (Now() - start) * 1e3);
  }
}

}  // namespace
}  // namespace switchyard::worker
