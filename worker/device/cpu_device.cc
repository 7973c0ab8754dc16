#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/human.h"
#include "worker/device/cpu_arena.h"
#include "worker/device/device.h"
#include "worker/device/parallel_copy.h"

namespace switchyard::worker {
namespace {

class CpuBuffer final : public Buffer {
 public:
  CpuBuffer(void* data, uint64_t bytes) : data_(data), bytes_(bytes) {}
  ~CpuBuffer() override { munmap(data_, bytes_); }
  CpuBuffer(const CpuBuffer&) = delete;
  CpuBuffer& operator=(const CpuBuffer&) = delete;

  void* data() const override { return data_; }

 private:
  void* data_;
  uint64_t bytes_;
};

// Work has finished when the call that asks for it returns, so every point has been reached.
class CpuEvent final : public Event {
 public:
  absl::Status Synchronize() override { return absl::OkStatus(); }
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(int threads) : copy_(threads) {}

  uint64_t page_bytes() const override { return kCpuPageBytes; }

  absl::StatusOr<std::unique_ptr<Arena>> Reserve(uint64_t bytes) override {
    return CpuArena::Reserve(bytes);
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(uint64_t bytes) override {
    bytes = RoundUp(bytes == 0 ? 1 : bytes, kCpuPageBytes);
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot allocate ", HumanBytes(bytes), ": ", strerror(errno)));
    }
    return std::make_unique<CpuBuffer>(data, bytes);
  }

  StreamHandle compute_stream() override { return nullptr; }
  StreamHandle copy_stream() override { return nullptr; }
  StreamHandle reading_stream() override { return nullptr; }

  absl::Status Upload(void* device, const void* host, uint64_t bytes, StreamHandle) override {
    copy_.Copy(device, host, bytes);
    return absl::OkStatus();
  }
  absl::Status Download(void* host, const void* device, uint64_t bytes, StreamHandle) override {
    copy_.Copy(host, device, bytes);
    return absl::OkStatus();
  }
  absl::Status CopyOnDevice(void* to, const void* from, uint64_t bytes, StreamHandle) override {
    copy_.Copy(to, from, bytes);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<Event>> Record(StreamHandle) override {
    return std::make_unique<CpuEvent>();
  }
  absl::Status Wait(StreamHandle, Event&) override { return absl::OkStatus(); }
  absl::Status Synchronize(StreamHandle) override { return absl::OkStatus(); }

  bool has_graphs() const override { return false; }
  absl::StatusOr<std::unique_ptr<Graph>> Capture(StreamHandle,
                                                 const std::function<absl::Status()>&) override {
    return absl::UnimplementedError("the cpu device has no graphs");
  }

  absl::Status RegisterHost(const void*, uint64_t) override { return absl::OkStatus(); }
  absl::Status UnregisterHost(const void*) override { return absl::OkStatus(); }

 private:
  ParallelCopy copy_;
};

}  // namespace

std::unique_ptr<Device> MakeCpuDevice(int threads) { return std::make_unique<CpuDevice>(threads); }

}  // namespace switchyard::worker
