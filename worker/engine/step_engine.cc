#include "worker/engine/step_engine.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

EngineLimits Completed(EngineLimits limits) {
  limits.step_rows = std::max(limits.step_rows, limits.prefill_chunk + limits.max_sequences);
  limits.launch_ahead = std::clamp(limits.launch_ahead, 0, 1);
  return limits;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const Architecture& arch,
                                                       const ImageLayout& image,
                                                       const EngineLimits& limits, Device& device,
                                                       kernels::Ops& ops, const Clock& clock,
                                                       EngineSink& sink) {
  return StepEngine::Create(arch, image, limits, device, ops, clock, sink);
}

absl::StatusOr<std::unique_ptr<StepEngine>> StepEngine::Create(
    const Architecture& arch, const ImageLayout& image, const EngineLimits& limits, Device& device,
    kernels::Ops& ops, const Clock& clock, EngineSink& sink) {
  if (limits.context_length < 1 || limits.max_sequences < 1 || limits.prefill_chunk < 1 ||
      limits.logit_rows < 1) {
    return absl::InvalidArgumentError(
        "context length, sequences, chunk and logit rows are positive");
  }
  std::unique_ptr<StepEngine> engine(
      new StepEngine(arch, image, Completed(limits), device, clock, sink));
  RETURN_IF_ERROR(engine->Build(ops));
  return engine;
}

StepEngine::StepEngine(const Architecture& arch, const ImageLayout& image,
                       const EngineLimits& limits, Device& device, const Clock& clock,
                       EngineSink& sink)
    : arch_(arch),
      image_(image),
      limits_(limits),
      kv_layout_(PlanKv(arch, limits.kv_dtype, limits.context_length, limits.max_sequences,
                        limits.prefill_chunk, device.page_bytes())),
      device_(device),
      clock_(clock),
      sink_(sink),
      predictor_(image.bytes, ParameterCount(arch)),
      sequences_(limits.max_sequences) {}

absl::Status StepEngine::Build(kernels::Ops& ops) {
  ASSIGN_OR_RETURN(residency_, Residency::Create(device_, image_.bytes, image_.chunk_bytes));
  residency_->SetObserver([this] { commands_.Wake(); });
  ASSIGN_OR_RETURN(
      runner_, StepRunner::Create(arch_, image_, limits_, kv_layout_, device_, ops, *residency_));
  cache_ = std::make_unique<KvCache>(kv_layout_, limits_.max_sequences, runner_->kv_store());
  lease_ = std::make_unique<LeaseKeeper>(image_.bytes, kv_layout_, *residency_, *cache_);
  return absl::OkStatus();
}

// The device may still be working on steps that nobody will read.
StepEngine::~StepEngine() { device_.Synchronize(device_.compute_stream()).IgnoreError(); }

void StepEngine::SetSource(std::shared_ptr<WeightSource> source) {
  residency_->SetSource(std::move(source));
  commands_.Wake();
}

void StepEngine::SetLease(const LeaseTarget& target) {
  commands_.Push(target);
  // A step that waits for weights must not keep it waiting, unless it gives more: it may take these
  // weights away again, or ask for KV that others need.
  const bool more_kv = target.kv_bytes > asked_kv_.exchange(target.kv_bytes);
  if (target.weight_bytes < image_.bytes || !more_kv) residency_->Interrupt();
}

void StepEngine::Cancel(RequestId id) {
  commands_.Push(CancelCommand{id});
  residency_->Interrupt();  // whose rows they are that wait for weights, only the engine knows
}

void StepEngine::Stop() {
  commands_.Stop();
  residency_->Interrupt();
}

void StepEngine::Run() {
  while (!commands_.stopped()) {
    if (Iterate()) continue;
    const Nanos deadline = sequences_.NextDeadline();
    commands_.Wait(deadline == 0 ? -1 : std::max<Nanos>(0, deadline - clock_.Now()));
  }
}

bool StepEngine::Iterate() {
  ApplyCommands();
  ExpireDeadlines();
  sequences_.waiting().Age(clock_.Now());
  bool progress = TendLease();
  const size_t before = on_their_way_.size();
  progress |= LaunchStep();
  const bool launched = on_their_way_.size() > before;
  // The step before is read while the one just launched runs. With nothing launched, all are read.
  const size_t unread = launched ? static_cast<size_t>(limits_.launch_ahead) : 0;
  while (on_their_way_.size() > unread) {
    ReadStep();
    progress = true;
  }
  if (on_their_way_.empty() && !restored_.empty()) {
    // No step follows that would tell when it has been read.
    device_.Synchronize(device_.compute_stream()).IgnoreError();
    DropRestored(restored_);
  }
  Tell();
  if (!progress) progress = CaptureGraph();
  return progress || !commands_.empty();
}

// ---- Deciding

BatchItem StepEngine::ItemOf(const Sequence& sequence) const {
  BatchItem item;
  item.priority = sequence.request.priority;
  item.arrival = sequence.arrival;
  item.suspended = sequence.suspended;
  item.computed = sequence.computed;
  item.length = sequence.length();
  item.most_length = sequence.most_length();
  item.complete = sequence.complete();
  if (sequence.state == SequenceState::kRunning) {
    item.held = cache_->Held(sequence.slot);
  } else {
    item.held.assign(kv_layout_.groups.size(), 0);
    if (sequence.paused_kv != nullptr) {
      for (size_t i = 0; i < item.held.size(); ++i) {
        item.held[i] = sequence.paused_kv->spans[i].count();
      }
    }
  }
  return item;
}

StepEngine::Picture StepEngine::TakePicture() const {
  Picture picture;
  picture.running = sequences_.running();
  picture.paused.assign(sequences_.paused().begin(), sequences_.paused().end());
  picture.waiting = sequences_.waiting().Next(limits_.max_sequences);
  for (const auto& each : picture.running) picture.running_items.push_back(ItemOf(*each));
  for (const auto& each : picture.paused) picture.paused_items.push_back(ItemOf(*each));
  for (const auto& each : picture.waiting) picture.waiting_items.push_back(ItemOf(*each));
  return picture;
}

BatchPlan StepEngine::Plan(const Picture& picture) const {
  BatchInput input;
  input.running = picture.running_items;
  input.paused = picture.paused_items;
  input.waiting = picture.waiting_items;
  input.room = cache_->Room();
  input.admit = lease_->holds_model();
  input.resume = lease_->holds_model() || lease_->must_finish();
  // Until all have finished nothing of the pool goes.
  input.admission_limit = lease_->must_finish()
                              ? cache_->limit()
                              : std::min(cache_->limit(), lease_->target().kv_bytes);
  input.free_slots = sequences_.free_slots();
  input.step_rows = limits_.step_rows;
  input.prefill_chunk = limits_.prefill_chunk;
  input.layout = &kv_layout_;
  return PlanBatch(input);
}

// ---- Doing

bool StepEngine::LaunchStep() {
  if (!lease_->may_step()) return false;
  Picture picture = TakePicture();
  BatchPlan plan = Plan(picture);
  if (!plan.pause.empty() && !on_their_way_.empty()) {
    // A sequence can be paused once its tokens are known; and some may end now, and make room.
    ReadAll();
    picture = TakePicture();
    plan = Plan(picture);
  }
  std::vector<SequenceRows> rows = HoldBlocks(CarryOut(plan, picture));
  const bool changed =
      !plan.pause.empty() || !plan.resume.empty() || !plan.admit.empty() || !plan.rows.empty();
  if (!rows.empty()) Launch(std::move(rows));
  return changed;
}

std::vector<SequenceRows> StepEngine::CarryOut(const BatchPlan& plan, const Picture& picture) {
  std::vector<std::shared_ptr<Sequence>> leaving;
  for (const int32_t index : plan.pause) leaving.push_back(picture.running[index]);
  Pause(leaving);
  for (const int32_t index : plan.resume) {
    if (!Resume(*picture.paused[index])) return {};
  }
  for (const int32_t index : plan.admit) {
    Sequence& sequence = *picture.waiting[index];
    sequences_.Start(sequence);
    sequence.times.prefill_started = clock_.Now();
    if (absl::Status status = runner_->UploadTokens(sequence); !status.ok()) {
      End(sequence, SequenceEnd::kError, std::string(status.message()));
    }
  }
  std::vector<SequenceRows> rows;
  for (const BatchRows& each : plan.rows) {
    const auto& list = each.from == BatchRows::From::kRunning  ? picture.running
                       : each.from == BatchRows::From::kPaused ? picture.paused
                                                               : picture.waiting;
    const std::shared_ptr<Sequence>& sequence = list[each.index];
    if (sequence->state != SequenceState::kRunning) continue;
    SequenceRows out;
    out.sequence = sequence;
    out.first = each.first;
    out.end = each.end;
    out.draws = each.end == sequence->length();
    rows.push_back(std::move(out));
  }
  return rows;
}

// Gives every row its blocks; leaves out those that the device has none for.
std::vector<SequenceRows> StepEngine::HoldBlocks(std::vector<SequenceRows> rows) {
  // What slides out of one sequence's window may be what another needs.
  for (const SequenceRows& each : rows) cache_->Trim(each.sequence->slot, each.first);
  for (size_t i = 0; i < rows.size(); ++i) {
    absl::Status status = cache_->Extend(rows[i].sequence->slot, rows[i].first, rows[i].end);
    if (status.ok()) continue;
    lease_->KvCommitFailed(status);
    rows.resize(i);
    break;
  }
  return rows;
}

void StepEngine::Launch(std::vector<SequenceRows> rows) {
  int32_t count = 0;
  for (const SequenceRows& each : rows) count += each.end - each.first;
  const uint64_t missing = image_.bytes - std::min(image_.bytes, residency_->resident_bytes());
  StepRunner::BeforeWait before_wait;
  if (missing > 0) {
    // The step may take as long as they do.
    Tell();
    before_wait = [this] { return WhileWeightsArrive(); };
  }
  stats_.StepStarted(clock_.Now(), predictor_.Predict(count, missing));
  absl::StatusOr<Launched> launched = runner_->Launch(rows, *cache_, before_wait);
  if (!launched.ok()) {
    stats_.StepFailed(clock_.Now());
    StepFailed(rows, launched.status());
    return;
  }
  launched->started = clock_.Now();
  launched->restored = std::exchange(restored_, {});
  for (const SequenceRows& each : launched->rows) {
    Sequence& sequence = *each.sequence;
    sequence.computed = each.end;
    if (each.draws) ++sequence.drawing;
    sequence.prompt_scored = std::max(sequence.prompt_scored, each.score_end + 1);
  }
  on_their_way_.push_back(*std::move(launched));
}

// Before each layer: they arrive one by one. CANCELLED if something cannot wait for the rest of
// them.
absl::Status StepEngine::WhileWeightsArrive() {
  Report();
  const Nanos deadline = sequences_.NextDeadline();
  if (deadline == 0 || clock_.Now() < deadline) return absl::OkStatus();
  return absl::CancelledError("a deadline has passed while weights arrived");
}

// One at a time, so that a request that comes meanwhile runs next. True if there may be more.
bool StepEngine::CaptureGraph() {
  if (!on_their_way_.empty() || !commands_.empty() || !lease_->may_step()) return false;
  const int32_t size = runner_->NextCapture();
  if (size == 0) return false;
  // Nobody's step, but a GPU that hangs in it must be noticed as in any other.
  stats_.StepStarted(clock_.Now(), predictor_.Predict(size, 0));
  const absl::Status captured = runner_->CaptureOne(size);
  stats_.StepFailed(clock_.Now());
  if (captured.ok()) return true;
  LogError("a step of padding failed: ", captured.ToString());
  return false;
}

void StepEngine::StepFailed(const std::vector<SequenceRows>& rows, const absl::Status& why) {
  // Nothing of the step counts, but what was launched of it may still be reading its inputs.
  device_.Synchronize(device_.compute_stream()).IgnoreError();
  // Weights that did not arrive are the lease's trouble: the rows run again when it is mended.
  if (!residency_->error().ok() || absl::IsCancelled(why)) return;
  LogError("a step failed: ", why.ToString());
  ReadAll();
  for (const SequenceRows& each : rows) {
    if (each.sequence->state != SequenceState::kRunning) continue;
    End(*each.sequence, SequenceEnd::kError, std::string(why.message()));
  }
}

// ---- Reading

void StepEngine::ReadAll() {
  while (!on_their_way_.empty()) ReadStep();
}

void StepEngine::ReadStep() {
  Launched launched = std::move(on_their_way_.front());
  on_their_way_.pop_front();
  const absl::Status status = runner_->Await(launched);
  DropRestored(launched.restored);
  const Nanos now = clock_.Now();
  stats_.StepFinished(now);
  if (!on_their_way_.empty()) {
    stats_.StepStarted(now, predictor_.Predict(on_their_way_.front().step_rows, 0));
  }
  if (!status.ok()) {
    LogError("a step failed on the device: ", status.ToString());
    for (const SequenceRows& each : launched.rows) {
      if (each.sequence->state == SequenceState::kEnded) continue;
      End(*each.sequence, SequenceEnd::kError, std::string(status.message()));
    }
    return;
  }
  predictor_.Observe(launched.step_rows, now - launched.started);
  for (const SequenceRows& each : launched.rows) {
    // A sequence that has ended since then has no use for what the step drew.
    if (each.sequence->state != SequenceState::kEnded) ReadRows(launched, each, now);
  }
}

namespace {

TokenResult ResultAt(const Launched& launched, int32_t index, int32_t id, int32_t alternatives) {
  const StepOutputs& out = launched.buffers->host_outputs();
  TokenResult result;
  result.id = id;
  if (alternatives < 0) return result;
  result.logprob = out.logprob[index];
  const int32_t top = std::min(alternatives, launched.top);
  const int64_t begin = int64_t{index} * launched.top;
  result.top_ids.assign(out.top_ids + begin, out.top_ids + begin + top);
  result.top_logprobs.assign(out.top_logprob + begin, out.top_logprob + begin + top);
  return result;
}

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

// Of the prompt's tokens, as far as the step has told them.
void StepEngine::ReadScores(const Launched& launched, const SequenceRows& rows) {
  Sequence& sequence = *rows.sequence;
  int32_t index = rows.logits;
  for (int32_t row = rows.score_begin; row < rows.score_end; ++row, ++index) {
    if (sequence.prompt_results.empty()) {
      // Nothing comes before the first token.
      sequence.prompt_results.emplace_back().id = sequence.tokens[0];
    }
    sequence.prompt_results.push_back(
        ResultAt(launched, index, sequence.tokens[row + 1], sequence.request.prompt_logprobs));
    if (std::isnan(sequence.prompt_results.back().logprob)) {
      return End(sequence, SequenceEnd::kNotNumbers);
    }
  }
}

void StepEngine::ReadRows(const Launched& launched, const SequenceRows& rows, Nanos now) {
  Sequence& sequence = *rows.sequence;
  ReadScores(launched, rows);
  if (!rows.draws || sequence.state == SequenceState::kEnded) return;

  const int32_t index = rows.logits + rows.score_end - rows.score_begin;
  const int32_t id = launched.buffers->host_outputs().drawn[index];
  if (id == kernels::kNotNumbers) return End(sequence, SequenceEnd::kNotNumbers);
  sequence.tokens.push_back(id);
  --sequence.drawing;
  stats_.AddTokens(1);
  SequenceEvent& event = events_.Of(sequence.request.id);
  if (sequence.times.first_token == 0) {
    sequence.times.first_token = now;
    if (sequence.wants_prompt_scores() && sequence.prompt_results.empty()) {
      sequence.prompt_results.emplace_back().id = sequence.tokens[0];
    }
    event.prompt = std::move(sequence.prompt_results);
  }
  sequence.times.last_token = now;
  event.tokens.push_back(ResultAt(launched, index, id, sequence.request.logprobs));
  if (Contains(sequence.request.stop_ids, id)) {
    End(sequence, SequenceEnd::kStop);
  } else if (static_cast<int32_t>(sequence.tokens.size()) == sequence.most_length()) {
    End(sequence, SequenceEnd::kLength);
  }
}

SequenceCounts StepEngine::Counts() const {
  SequenceCounts counts;
  counts.running = static_cast<int32_t>(sequences_.running().size());
  counts.paused = static_cast<int32_t>(sequences_.paused().size());
  counts.waiting = static_cast<int32_t>(sequences_.waiting().size());
  counts.host_kv_bytes = host_kv_bytes_;
  return counts;
}

void StepEngine::PublishStats() {
  const SequenceCounts counts = Counts();
  stats_.SetSequences(counts.running, counts.waiting, counts.paused);
  uint64_t used = 0;
  uint64_t region = 0;
  for (const KvRoom::Group& group : cache_->Room().groups) {
    used += group.used;
    region += group.most;
  }
  // Blocks that the lease would hold if it were spread over the groups as the regions are.
  const double leased = static_cast<double>(cache_->limit()) / kv_layout_.useful_bytes;
  stats_.SetBlocks(used, static_cast<uint64_t>(region * std::min(1.0, leased)));
}

void StepEngine::Tell() {
  PublishStats();
  if (!events_.empty()) sink_.OnEvents(events_.Take());
  Report();
}

}  // namespace switchyard::worker
