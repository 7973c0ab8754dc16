// A GPU as a Device. The process drives one: CUDA_VISIBLE_DEVICES names it, and it is device 0.

#include "worker/device/cuda_device.h"

#include <cuda_runtime.h>

#include <cstdlib>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/checked.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/device/cuda_arena.h"
#include "worker/device/cuda_driver.h"
#include "worker/device/cuda_graph.h"
#include "worker/device/cuda_host_memory.h"
#include "worker/device/cuda_upload.h"
#include "worker/device/host_buffer.h"

namespace switchyard::worker {
namespace {

class CudaBuffer final : public Buffer {
 public:
  explicit CudaBuffer(void* data) : data_(data) {}
  ~CudaBuffer() override {
    if (absl::Status status = CudaStatus(cudaFree(data_), "cudaFree"); !status.ok()) {
      LogError("device memory stays allocated: ", status.ToString());
    }
  }
  CudaBuffer(const CudaBuffer&) = delete;
  CudaBuffer& operator=(const CudaBuffer&) = delete;

  void* data() const override { return data_; }

 private:
  void* data_;
};

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(cudaEvent_t event) : event_(event) {}
  ~CudaEvent() override { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  absl::Status Synchronize() override {
    return CudaStatus(cudaEventSynchronize(event_), "waiting for the device");
  }
  cudaEvent_t event() const { return event_; }

 private:
  cudaEvent_t event_;
};

cudaStream_t Of(StreamHandle stream) { return static_cast<cudaStream_t>(stream); }

static_assert(kBesideWeightsBytes <= kFewBytes);

// The context is made by the first call that needs device memory, which the lease's fixed part has
// been granted for by then: registering a master before that waits for it.
class CudaDevice final : public Device {
 public:
  ~CudaDevice() override {
    if (compute_ != nullptr) cudaStreamDestroy(compute_);
    if (copy_ != nullptr) cudaStreamDestroy(copy_);
    if (reading_ != nullptr) cudaStreamDestroy(reading_);
  }

  uint64_t page_bytes() const override { return kCudaPageBytes; }

  absl::StatusOr<std::unique_ptr<Arena>> Reserve(uint64_t bytes) override {
    RETURN_IF_ERROR(Open());
    return CudaArena::Reserve(driver_, kCudaPageBytes, bytes);
  }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(uint64_t bytes) override;

  StreamHandle compute_stream() override { return compute_; }
  StreamHandle copy_stream() override { return copy_; }
  StreamHandle reading_stream() override { return reading_; }

  absl::Status Upload(void* device, const void* host, uint64_t bytes,
                      StreamHandle stream) override {
    return host_.ForEachPiece(host, bytes, [&](uint64_t offset, uint64_t piece, bool registered) {
      auto* const to = static_cast<std::byte*>(device) + offset;
      const auto* const from = static_cast<const std::byte*>(host) + offset;
      if (registered && (bytes <= kFewBytes || Of(stream) == reading_)) {
        return CudaStatus(CopyByThreads(to, from, piece, Of(stream)), "copying");
      }
      return Copy(to, from, piece, cudaMemcpyHostToDevice, stream);
    });
  }
  absl::Status Download(void* host, const void* device, uint64_t bytes,
                        StreamHandle stream) override {
    return host_.ForEachPiece(host, bytes, [&](uint64_t offset, uint64_t piece, bool) {
      return Copy(static_cast<std::byte*>(host) + offset,
                  static_cast<const std::byte*>(device) + offset, piece, cudaMemcpyDeviceToHost,
                  stream);
    });
  }
  absl::Status CopyOnDevice(void* to, const void* from, uint64_t bytes,
                            StreamHandle stream) override {
    return Copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  }

  absl::StatusOr<std::unique_ptr<Event>> Record(StreamHandle stream) override;
  absl::Status Wait(StreamHandle stream, Event& event) override {
    return CudaStatus(cudaStreamWaitEvent(Of(stream), static_cast<CudaEvent&>(event).event(), 0),
                      "waiting");
  }
  absl::Status Synchronize(StreamHandle stream) override {
    if (stream == nullptr) return absl::OkStatus();  // never opened: there is nothing to wait for
    return CudaStatus(cudaStreamSynchronize(Of(stream)), "waiting for the device");
  }

  bool has_graphs() const override { return true; }
  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      StreamHandle stream, const std::function<absl::Status()>& launch) override {
    return CaptureCudaGraph(Of(stream), launch);
  }

  absl::Status RegisterHost(const void* data, uint64_t bytes) override {
    host_.Register(data, bytes);
    return absl::OkStatus();
  }
  absl::Status UnregisterHost(const void* data) override { return host_.Unregister(data); }

 private:
  absl::Status Open();
  absl::Status OpenOnce();
  absl::Status Copy(void* to, const void* from, uint64_t bytes, cudaMemcpyKind kind,
                    StreamHandle stream) {
    return CudaStatus(cudaMemcpyAsync(to, from, bytes, kind, Of(stream)), "copying");
  }

  std::mutex open_mu_;
  bool open_ = false;
  CudaDriver driver_;
  cudaStream_t compute_ = nullptr;
  cudaStream_t copy_ = nullptr;
  cudaStream_t reading_ = nullptr;
  CudaHostMemory host_;
};

absl::Status CudaDevice::Open() {
  {
    // What fails now, for want of memory say, may succeed when it is asked for again.
    std::lock_guard lock(open_mu_);
    if (!open_) RETURN_IF_ERROR(OpenOnce());
    open_ = true;
  }
  // The driver's own calls use the context that is current on their thread.
  return CudaStatus(cudaSetDevice(0), "opening the GPU");
}

absl::Status CudaDevice::OpenOnce() {
  // Whoever waits for a step or a copy sleeps: cores are for other workers and the supervisor.
  RETURN_IF_ERROR(
      CudaStatus(cudaInitDevice(0, cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid),
                 "opening the GPU"));
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(0), "opening the GPU"));
  ASSIGN_OR_RETURN(driver_, CudaDriver::Load());
  size_t granularity = 0;
  const CUmemAllocationProp kind = CudaMemoryKind();
  RETURN_IF_ERROR(CudaStatus(
      driver_.granularity(&granularity, &kind, CU_MEM_ALLOC_GRANULARITY_MINIMUM), "granularity"));
  if (granularity == 0 || kCudaPageBytes % granularity != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("this GPU's memory comes in units of ", HumanBytes(granularity),
                     ", which do not make ", HumanBytes(kCudaPageBytes)));
  }
  for (cudaStream_t* stream : {&compute_, &copy_, &reading_}) {
    if (*stream != nullptr) continue;
    RETURN_IF_ERROR(
        CudaStatus(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "opening a stream"));
  }
  host_.Start();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaDevice::Allocate(uint64_t bytes) {
  RETURN_IF_ERROR(Open());
  bytes = RoundUp(bytes == 0 ? 1 : bytes, kCudaPageBytes);
  void* data = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaMalloc(&data, bytes), "cudaMalloc"));
  auto buffer = std::make_unique<CudaBuffer>(data);
  RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(data, 0, bytes, compute_), "clearing"));
  RETURN_IF_ERROR(Synchronize(compute_));
  return buffer;
}

absl::StatusOr<std::unique_ptr<Event>> CudaDevice::Record(StreamHandle stream) {
  cudaEvent_t event = nullptr;
  RETURN_IF_ERROR(
      CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
                 "creating an event"));
  auto recorded = std::make_unique<CudaEvent>(event);
  RETURN_IF_ERROR(CudaStatus(cudaEventRecord(event, Of(stream)), "recording an event"));
  return recorded;
}

}  // namespace

std::unique_ptr<Device> MakeCudaDevice() { return std::make_unique<CudaDevice>(); }

void SelectCudaDevice(const std::string& uuid) {
  ::setenv("CUDA_VISIBLE_DEVICES", uuid.c_str(), 1);
}

}  // namespace switchyard::worker
