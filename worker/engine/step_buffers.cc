#include "worker/engine/step_buffers.h"

#include "common/check.h"
#include "common/checked.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kAlignment = 256;

// Hands out aligned stretches of one range; with a null base it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  T* Take(int64_t count) {
    T* at = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += RoundUp(static_cast<uint64_t>(count) * sizeof(T), kAlignment);
    return at;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  uint64_t bytes_ = 0;
};

StepInputs TakeInputs(Carver& carver, StepCapacity capacity) {
  StepInputs in;
  in.slot = carver.Take<int32_t>(capacity.rows);
  in.position = carver.Take<int32_t>(capacity.rows);
  in.sequence_slot = carver.Take<int32_t>(capacity.sequences);
  in.sequence_row = carver.Take<int32_t>(capacity.sequences + 1);
  in.sequence_length = carver.Take<int32_t>(capacity.sequences);
  in.logit_row = carver.Take<int32_t>(capacity.rows);
  in.sampling = carver.Take<kernels::SamplingRow>(capacity.rows);
  return in;
}

StepOutputs TakeOutputs(Carver& carver, StepCapacity capacity) {
  StepOutputs out;
  const int64_t top = int64_t{capacity.rows} * kMostTopLogprobs;
  out.drawn = carver.Take<int32_t>(capacity.rows);
  out.logprob = carver.Take<float>(capacity.rows);
  out.top_ids = carver.Take<int32_t>(top);
  out.top_logprob = carver.Take<float>(top);
  return out;
}

}  // namespace

uint64_t StepInputBytes(StepCapacity capacity) {
  Carver carver(nullptr);
  TakeInputs(carver, capacity);
  return carver.bytes();
}
uint64_t StepOutputBytes(StepCapacity capacity) {
  Carver carver(nullptr);
  TakeOutputs(carver, capacity);
  return carver.bytes();
}
StepInputs CarveStepInputs(std::byte* base, StepCapacity capacity) {
  Carver carver(base);
  return TakeInputs(carver, capacity);
}
StepOutputs CarveStepOutputs(std::byte* base, StepCapacity capacity) {
  Carver carver(base);
  return TakeOutputs(carver, capacity);
}

absl::StatusOr<std::unique_ptr<StepBuffers>> StepBuffers::Create(Device& device,
                                                                 StepCapacity largest,
                                                                 std::byte* device_memory,
                                                                 uint64_t table_bytes) {
  ASSIGN_OR_RETURN(std::unique_ptr<HostBuffer> host,
                   HostBuffer::Create(device, DeviceBytes(largest) + table_bytes));
  return std::unique_ptr<StepBuffers>(
      new StepBuffers(device, largest, device_memory, std::move(host)));
}

StepBuffers::StepBuffers(Device& device, StepCapacity largest, std::byte* device_memory,
                         std::unique_ptr<HostBuffer> host)
    : device_(device),
      largest_(largest),
      small_{largest.sequences, largest.sequences},
      device_memory_(device_memory),
      host_(std::move(host)) {
  table_staging_ = reinterpret_cast<int32_t*>(host_->data() + DeviceBytes(largest_));
}

void StepBuffers::Begin(StepCapacity step) {
  SY_CHECK(step.rows <= largest_.rows && step.sequences <= largest_.sequences);
  const StepCapacity capacity = step.rows <= small_.rows ? small_ : step;
  host_inputs_ = CarveStepInputs(host_->data(), capacity);
  inputs_ = CarveStepInputs(device_memory_, capacity);
  host_outputs_ = CarveStepOutputs(host_->data() + StepInputBytes(largest_), capacity);
  outputs_ = CarveStepOutputs(device_memory_ + StepInputBytes(largest_), capacity);
}

absl::Status StepBuffers::Upload(int32_t logit_rows) {
  const auto* end = reinterpret_cast<const std::byte*>(host_inputs_.sampling + logit_rows);
  const auto bytes = static_cast<uint64_t>(end - host_->data());
  return UploadBesideWeights(device_, device_memory_, host_->data(), bytes,
                             device_.compute_stream());
}

absl::Status StepBuffers::Download(int32_t logit_rows, bool logprobs, int32_t top) {
  const StreamHandle stream = device_.compute_stream();
  const auto rows = static_cast<uint64_t>(logit_rows);
  if (rows == 0) return absl::OkStatus();
  RETURN_IF_ERROR(
      device_.Download(host_outputs_.drawn, outputs_.drawn, rows * sizeof(int32_t), stream));
  if (!logprobs) return absl::OkStatus();
  RETURN_IF_ERROR(
      device_.Download(host_outputs_.logprob, outputs_.logprob, rows * sizeof(float), stream));
  if (top == 0) return absl::OkStatus();
  RETURN_IF_ERROR(device_.Download(host_outputs_.top_ids, outputs_.top_ids,
                                   rows * top * sizeof(int32_t), stream));
  return device_.Download(host_outputs_.top_logprob, outputs_.top_logprob,
                          rows * top * sizeof(float), stream);
}

}  // namespace switchyard::worker
