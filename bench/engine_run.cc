#include "bench/engine_run.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/backend.h"
#include "worker/model/image.h"

namespace switchyard::bench {
namespace {

constexpr uint64_t kLimitBytes = uint64_t{1} << 30;

}  // namespace

absl::StatusOr<std::unique_ptr<EngineRun>> EngineRun::Start(const Settings& settings) {
  std::unique_ptr<EngineRun> run(new EngineRun);
  v1::Model model;
  model.set_name("bench");
  model.set_checkpoint(settings.checkpoint);
  model.set_context_length(static_cast<uint32_t>(settings.context_length));
  model.set_max_sequences(static_cast<uint32_t>(settings.max_sequences));
  model.set_prefill_chunk(static_cast<uint32_t>(settings.prefill_chunk));
  worker::SelectDevice(settings.device);
  ASSIGN_OR_RETURN(worker::Backend backend, worker::OpenBackend(settings.device, settings.threads));
  run->ops_ = std::move(backend.ops);
  run->device_ = std::move(backend.device);
  run->on_cpu_ = settings.device == "cpu";
  ASSIGN_OR_RETURN(run->model_, worker::OpenModel(model, settings.device, *run->ops_));
  RETURN_IF_ERROR(run->Load());
  RETURN_IF_ERROR(run->BecomeResident(settings.graphs));
  return run;
}

absl::Status EngineRun::Load() {
  const uint64_t bytes = model_->image.bytes;
  master_ = std::make_unique<Buffer>(static_cast<int64_t>(bytes));
  return worker::FillImage(model_->image, model_->checkpoint,
                           {reinterpret_cast<std::byte*>(master_->data()), bytes},
                           [](uint64_t) { return true; });
}

absl::Status EngineRun::BecomeResident(bool graphs) {
  if (!on_cpu_) {
    // Before the engine runs: allocating clears on the stream that it captures graphs from.
    ASSIGN_OR_RETURN(copy_from_, device_->Allocate(kLimitBytes));
    ASSIGN_OR_RETURN(copy_to_, device_->Allocate(kLimitBytes));
  }
  worker::EngineLimits limits = model_->limits;
  limits.graphs = graphs;
  ASSIGN_OR_RETURN(engine_, worker::Engine::Create(model_->arch, model_->image, limits, *device_,
                                                   *ops_, clock_, *this));
  thread_ = std::thread([this] { engine_->Run(); });
  engine_->SetSource(std::make_shared<worker::MasterSource>(
      std::span(reinterpret_cast<const std::byte*>(master_->data()), model_->image.bytes)));
  worker::LeaseTarget target;
  target.epoch = 1;
  target.weight_bytes = model_->image.bytes;
  target.kv_bytes = model_->plan.kv_useful_bytes();
  engine_->SetLease(target);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return lease_.settled; });
  if (!lease_.error.empty()) return absl::ResourceExhaustedError(lease_.error);
  return absl::OkStatus();
}

EngineRun::~EngineRun() {
  if (engine_ != nullptr) engine_->Stop();
  if (thread_.joinable()) thread_.join();
}

std::vector<EngineRun::Result> EngineRun::Generate(int sequences, int32_t prompt, int32_t tokens) {
  std::mt19937 random(7);
  const uint64_t first = next_id_;
  next_id_ += static_cast<uint64_t>(sequences);
  {
    std::lock_guard lock(mutex_);
    unfinished_ = sequences;
  }
  for (int i = 0; i < sequences; ++i) {
    worker::SequenceRequest request;
    request.id = first + static_cast<uint64_t>(i);
    for (int32_t j = 0; j < prompt; ++j) {
      request.prompt.push_back(
          static_cast<int32_t>(random() % static_cast<uint32_t>(model_->arch.vocabulary)));
    }
    request.sampling.temperature = 0;
    request.max_tokens = tokens;
    engine_->Submit(std::move(request));
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return unfinished_ == 0; });
  std::vector<Result> results;
  for (auto& [id, result] : std::exchange(results_, {})) results.push_back(std::move(result));
  return results;
}

void EngineRun::OnEvents(std::vector<worker::SequenceEvent> events) {
  const Nanos now = clock_.Now();
  std::lock_guard lock(mutex_);
  for (const worker::SequenceEvent& event : events) {
    Result& result = results_[event.id];
    for (const worker::TokenResult& token : event.tokens) {
      result.tokens.push_back(token.id);
      result.at.push_back(now);
    }
    if (event.end == worker::SequenceEnd::kNone) continue;
    result.times = event.times;
    result.error = event.error;
    --unfinished_;
  }
  changed_.notify_all();
}

void EngineRun::OnLease(const worker::LeaseReport& report) {
  std::lock_guard lock(mutex_);
  lease_ = report;
  changed_.notify_all();
}

double EngineRun::MeasureLimit(int threads) {
  if (on_cpu_) return MeasureRead(*master_, threads);
  constexpr int kCopies = 20;
  const auto copy = [&]() -> absl::Status {
    for (int i = 0; i < kCopies; ++i) {
      RETURN_IF_ERROR(device_->CopyOnDevice(copy_to_->data(), copy_from_->data(), kLimitBytes,
                                            device_->copy_stream()));
    }
    return device_->Synchronize(device_->copy_stream());
  };
  const double start = Now();
  if (!copy().ok()) return 0;
  return 2.0 * kCopies * static_cast<double>(kLimitBytes) / 1e9 / (Now() - start);
}

double EngineRun::WeightBytesPerStep(int sequences) const {
  const worker::Architecture& arch = model_->arch;
  double bytes = 0;
  for (const worker::ImageTensor& tensor : model_->image.tensors) {
    double part = 1;
    if (tensor.role == worker::Role::kEmbedding && !arch.tied_embeddings) part = 0;
    if (tensor.role == worker::Role::kExpertsGateUp || tensor.role == worker::Role::kExpertsDown) {
      part = std::min(1.0, static_cast<double>(arch.moe.chosen) * sequences / arch.moe.experts);
    }
    bytes += part * static_cast<double>(tensor.bytes);
  }
  return bytes;
}

}  // namespace switchyard::bench
