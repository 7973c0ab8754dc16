#pragma once

// A device (`cpu` unless said otherwise) whose arenas and captures fail when they are told to, and
// whose uploads can be held up. It counts its graphs, and can make some of recorded calls where the
// device has none.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "worker/device/device.h"

namespace switchyard::worker {

// Calls that are kept instead of carried out while a graph is made of them. For one thread.
struct Tape {
  bool records = false;
  std::vector<std::function<absl::Status()>> calls;
};

// What a test sets and sees. Outlives the device. For any thread.
class Faults {
 public:
  // Lets `count` commits succeed from now on, then fails every one until called again.
  void FailCommitsAfter(int64_t count) {
    std::lock_guard<std::mutex> lock(mu_);
    commits_left_ = count;
  }
  void FailReleases(bool fail) {
    std::lock_guard<std::mutex> lock(mu_);
    fail_releases_ = fail;
  }
  void Mend() { FailCommitsAfter(std::numeric_limits<int64_t>::max()); }
  // Uploads of at least 4 KiB wait once `count` of them have passed, until more are let through.
  void HoldUploadsAfter(int64_t count) {
    std::lock_guard<std::mutex> lock(mu_);
    fail_uploads_ = false;
    uploads_left_ = count;
    changed_.notify_all();
  }
  int64_t uploads_left() const {
    std::lock_guard<std::mutex> lock(mu_);
    return uploads_left_;
  }
  void LetUploadsPass() { HoldUploadsAfter(std::numeric_limits<int64_t>::max()); }
  // Instead of waiting.
  void FailUploadsAfter(int64_t count) {
    std::lock_guard<std::mutex> lock(mu_);
    fail_uploads_ = true;
    uploads_left_ = count;
  }
  uint64_t committed() const {
    std::lock_guard<std::mutex> lock(mu_);
    return committed_;
  }

  // The largest upload of all so far, and all of them together.
  uint64_t largest_upload() const {
    std::lock_guard<std::mutex> lock(mu_);
    return largest_upload_;
  }
  uint64_t uploaded() const {
    std::lock_guard<std::mutex> lock(mu_);
    return uploaded_;
  }
  void CountUpload(uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mu_);
    largest_upload_ = std::max(largest_upload_, bytes);
    uploaded_ += bytes;
  }

  // How often somebody has waited for all of a stream's work, and how often that shall fail.
  std::atomic<int> synchronized = 0, synchronizes_to_fail = 0;
  // When host memory is registered, on the thread that does it.
  std::function<void()> on_register = [] {};

  // Of graphs. Only the engine's thread, and the test while that rests.
  bool fail_captures = false;
  int captured = 0, graph_launches = 0;
  std::function<void()> on_capture = [] {}, on_graph_launch = [] {};

  // Set before the device is used: it has a reading stream of its own then. What was launched: c
  // and r for copies on the copy stream and on the reading one, C and R for events recorded there.
  bool records_streams = false;
  std::string launched() const {
    std::lock_guard<std::mutex> lock(mu_);
    return launched_;
  }
  void RecordStream(char what) {
    std::lock_guard<std::mutex> lock(mu_);
    launched_ += what;
  }

  // Of all buffers that were allocated, and of host memory that is registered.
  uint64_t allocated() const {
    std::lock_guard<std::mutex> lock(mu_);
    return allocated_;
  }
  uint64_t registered() const {
    std::lock_guard<std::mutex> lock(mu_);
    uint64_t bytes = 0;
    for (const auto& [data, size] : registered_) bytes += size;
    return bytes;
  }

  void Allocate(uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mu_);
    allocated_ += bytes;
  }
  void Register(const void* data, uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mu_);
    registered_[data] = bytes;
  }
  void Unregister(const void* data) {
    std::lock_guard<std::mutex> lock(mu_);
    registered_.erase(data);
  }
  absl::Status Commit(Arena& arena, uint64_t offset, uint64_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mu_);
      if (commits_left_ == 0) return absl::ResourceExhaustedError("no room, says the test");
      --commits_left_;
      committed_ += bytes;
    }
    return arena.Commit(offset, bytes);
  }
  absl::Status Release(Arena& arena, uint64_t offset, uint64_t bytes) {
    std::lock_guard<std::mutex> lock(mu_);
    if (fail_releases_) return absl::InternalError("it stays, says the test");
    committed_ -= bytes;
    return arena.Release(offset, bytes);
  }
  absl::Status PassUpload(uint64_t bytes) {
    if (bytes < 4096) return absl::OkStatus();
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return uploads_left_ > 0 || fail_uploads_; });
    if (uploads_left_ == 0) return absl::InternalError("no copy, says the test");
    --uploads_left_;
    return absl::OkStatus();
  }

 private:
  mutable std::mutex mu_;
  std::condition_variable changed_;
  bool fail_releases_ = false, fail_uploads_ = false;
  int64_t commits_left_ = std::numeric_limits<int64_t>::max();
  int64_t uploads_left_ = std::numeric_limits<int64_t>::max();
  uint64_t committed_ = 0;
  uint64_t allocated_ = 0;
  std::string launched_;
  uint64_t largest_upload_ = 0, uploaded_ = 0;
  std::map<const void*, uint64_t> registered_;
};

class FaultArena final : public Arena {
 public:
  FaultArena(Faults& faults, std::unique_ptr<Arena> arena)
      : faults_(faults), arena_(std::move(arena)) {}
  std::byte* base() const override { return arena_->base(); }
  uint64_t reserved_bytes() const override { return arena_->reserved_bytes(); }
  absl::Status Commit(uint64_t offset, uint64_t bytes) override {
    return faults_.Commit(*arena_, offset, bytes);
  }
  absl::Status Release(uint64_t offset, uint64_t bytes) override {
    return faults_.Release(*arena_, offset, bytes);
  }
  uint64_t committed_bytes() const override { return arena_->committed_bytes(); }

 private:
  Faults& faults_;
  std::unique_ptr<Arena> arena_;
};

// Of a device that has graphs, or of the calls on a tape.
class FaultGraph final : public Graph {
 public:
  FaultGraph(Faults& faults, std::unique_ptr<Graph> graph, Tape tape)
      : faults_(faults), graph_(std::move(graph)), tape_(std::move(tape)) {}
  absl::Status Launch(StreamHandle stream) override {
    ++faults_.graph_launches;
    faults_.on_graph_launch();
    if (graph_ != nullptr) return graph_->Launch(stream);
    for (const auto& call : tape_.calls) RETURN_IF_ERROR(call());
    return absl::OkStatus();
  }

 private:
  Faults& faults_;
  std::unique_ptr<Graph> graph_;
  Tape tape_;
};

class FaultDevice final : public Device {
 public:
  explicit FaultDevice(Faults& faults, int threads = 1)
      : FaultDevice(faults, MakeCpuDevice(threads), nullptr) {}
  // With a tape it has graphs of what is recorded there.
  FaultDevice(Faults& faults, std::unique_ptr<Device> device, Tape* tape)
      : faults_(faults), device_(std::move(device)), tape_(tape) {}

  uint64_t page_bytes() const override { return device_->page_bytes(); }
  absl::StatusOr<std::unique_ptr<Arena>> Reserve(uint64_t bytes) override {
    ASSIGN_OR_RETURN(std::unique_ptr<Arena> arena, device_->Reserve(bytes));
    return std::make_unique<FaultArena>(faults_, std::move(arena));
  }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(uint64_t bytes) override {
    faults_.Allocate(bytes);
    return device_->Allocate(bytes);
  }
  StreamHandle compute_stream() override { return device_->compute_stream(); }
  StreamHandle copy_stream() override { return device_->copy_stream(); }
  StreamHandle reading_stream() override {
    return faults_.records_streams ? &faults_ : device_->reading_stream();
  }
  absl::Status Upload(void* to, const void* from, uint64_t bytes, StreamHandle stream) override {
    faults_.CountUpload(bytes);
    RETURN_IF_ERROR(faults_.PassUpload(bytes));
    if (faults_.records_streams) faults_.RecordStream(stream == &faults_ ? 'r' : 'c');
    return device_->Upload(to, from, bytes, stream);
  }
  absl::Status Download(void* to, const void* from, uint64_t bytes, StreamHandle stream) override {
    return device_->Download(to, from, bytes, stream);
  }
  absl::Status CopyOnDevice(void* to, const void* from, uint64_t bytes,
                            StreamHandle stream) override {
    return device_->CopyOnDevice(to, from, bytes, stream);
  }
  absl::StatusOr<std::unique_ptr<Event>> Record(StreamHandle stream) override {
    if (faults_.records_streams) faults_.RecordStream(stream == &faults_ ? 'R' : 'C');
    return device_->Record(stream);
  }
  absl::Status Wait(StreamHandle stream, Event& event) override {
    return device_->Wait(stream, event);
  }
  absl::Status Synchronize(StreamHandle stream) override {
    ++faults_.synchronized;
    if (faults_.synchronizes_to_fail > 0) {
      --faults_.synchronizes_to_fail;
      return absl::InternalError("no copy, says the test");
    }
    return device_->Synchronize(stream);
  }
  bool has_graphs() const override { return tape_ != nullptr || device_->has_graphs(); }
  absl::StatusOr<std::unique_ptr<Graph>> Capture(
      StreamHandle stream, const std::function<absl::Status()>& launch) override {
    if (faults_.fail_captures) return absl::ResourceExhaustedError("no graph, says the test");
    faults_.on_capture();
    ++faults_.captured;
    if (tape_ == nullptr) {
      ASSIGN_OR_RETURN(std::unique_ptr<Graph> graph, device_->Capture(stream, launch));
      return std::make_unique<FaultGraph>(faults_, std::move(graph), Tape());
    }
    tape_->records = true;
    const absl::Status launched = launch();
    tape_->records = false;
    Tape tape = std::exchange(*tape_, {});
    RETURN_IF_ERROR(launched);
    return std::make_unique<FaultGraph>(faults_, nullptr, std::move(tape));
  }
  absl::Status RegisterHost(const void* data, uint64_t bytes) override {
    faults_.on_register();
    faults_.Register(data, bytes);
    return device_->RegisterHost(data, bytes);
  }
  absl::Status UnregisterHost(const void* data) override {
    faults_.Unregister(data);
    return device_->UnregisterHost(data);
  }

 private:
  Faults& faults_;
  std::unique_ptr<Device> device_;
  Tape* tape_;
};

}  // namespace switchyard::worker
