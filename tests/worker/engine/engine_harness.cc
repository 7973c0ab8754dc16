#include "tests/worker/engine/engine_harness.h"

#include <algorithm>
#include <iterator>
#include <thread>
#include <utility>

#include "common/check.h"

namespace switchyard::worker {

bool CanBeNan(const ImageTensor& tensor) {
  using kernels::DType;
  if (tensor.piece == Piece::kZeros || tensor.role == Role::kRouterCorrection) return false;
  return tensor.dtype == DType::kF32 || tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16;
}

RowRange ValueRows(const Architecture& arch, const ImageTensor& tensor) {
  const int64_t width = int64_t{arch.q_heads + 2 * arch.kv_heads} * arch.head_dim;
  if (tensor.role != Role::kQkv || !CanBeNan(tensor) || tensor.n != width) return {};
  const int64_t values = int64_t{arch.kv_heads} * arch.head_dim;
  return {width - values, values};
}

Damage::Damage(const ImageTensor& tensor, std::vector<std::byte>& image)
    : Damage(tensor, {0, tensor.batch * tensor.n}, image) {}

Damage::Damage(const ImageTensor& tensor, RowRange rows, std::vector<std::byte>& image)
    : at_(image.data() + tensor.offset + kernels::DTypeBytes(tensor.dtype, rows.first * tensor.k)),
      whole_(at_, at_ + kernels::DTypeBytes(tensor.dtype, rows.count * tensor.k)) {
  std::fill_n(at_, whole_.size(), std::byte{0xff});
}

Damage::~Damage() { std::copy(whole_.begin(), whole_.end(), at_); }

SequenceRequest AfterToken(int32_t first, RequestId id) {
  SequenceRequest request;
  request.id = id;
  request.prompt = {first, first + 1, first + 2};
  request.max_tokens = 2;
  return request;
}

EngineHarness::EngineHarness(const Architecture& arch, const ImageLayout& image,
                             const std::byte* master, const EngineLimits& limits, kernels::Ops& ops,
                             HarnessGraphs graphs, std::unique_ptr<Device> device)
    : image_(image),
      ops_(ops, tape_),
      device_(faults_, device != nullptr ? std::move(device) : MakeCpuDevice(1),
              graphs == HarnessGraphs::kRecorded ? &tape_ : nullptr),
      kv_(PlanKv(arch, limits.kv_dtype, limits.context_length, limits.max_sequences,
                 limits.prefill_chunk, device_.page_bytes())) {
  auto engine = Engine::Create(arch, image, limits, device_, ops_, clock_, *this);
  SY_CHECK(engine.ok());
  engine_ = *std::move(engine);
  engine_->SetSource(std::make_shared<MasterSource>(std::span(master, image.bytes)));
}

void EngineHarness::Grant(uint64_t weight_bytes, uint64_t kv_bytes, bool pause,
                          uint64_t host_kv_bytes) {
  engine_->SetLease({.epoch = ++epoch_,
                     .weight_bytes = weight_bytes,
                     .kv_bytes = kv_bytes,
                     .pause = pause,
                     .host_kv_bytes = host_kv_bytes});
}

void EngineHarness::Settle() {
  while (true) {
    const bool more = engine_->Iterate();
    const bool settled = epoch_ == 0 || (!reports_.empty() && reports_.back().settled &&
                                         reports_.back().epoch == epoch_);
    if (!more && settled) return;
    if (!more) std::this_thread::yield();  // the copying thread has work
  }
}

void EngineHarness::Iterate(int times) {
  for (int i = 0; i < times; ++i) engine_->Iterate();
}

void EngineHarness::OnEvents(std::vector<SequenceEvent> events) {
  for (SequenceEvent& event : events) {
    on_event(event);
    Outcome& outcome = outcomes_[event.id];
    if (outcome.end != SequenceEnd::kNone) ++outcome.events_after_end;
    for (TokenResult& result : event.tokens) {
      outcome.tokens.push_back(result.id);
      outcome.results.push_back(std::move(result));
    }
    if (!event.prompt.empty()) outcome.prompt = std::move(event.prompt);
    outcome.paused += event.paused;
    outcome.resumed += event.resumed;
    if (event.end != SequenceEnd::kNone) {
      outcome.end = event.end;
      outcome.error = event.error;
      outcome.times = event.times;
    }
  }
}

void EngineHarness::OnLease(const LeaseReport& report) {
  on_report(report);
  reports_.push_back(report);
}

}  // namespace switchyard::worker
