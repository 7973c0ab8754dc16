// `swap`: how fast an image becomes resident and goes, beside the copy rate.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <mutex>

#include "bench/limits.h"
#include "bench/report.h"
#include "bench/subcommand.h"
#include "common/status_macros.h"
#include "common/usable_cores.h"
#include "worker/backend.h"
#include "worker/device/device.h"
#include "worker/device/residency.h"

namespace switchyard::bench {
namespace {

struct {
  int64_t mebibytes = 2048;
  int64_t chunk_mebibytes = 16;
  std::string device = "cpu";
  int threads = 0;
  int runs = 7;
  bool json = false;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("--mib", options.mebibytes, "size of the image")->check(CLI::PositiveNumber);
  app.add_option("--chunk-mib", options.chunk_mebibytes, "size of a chunk")
      ->check(CLI::PositiveNumber);
  app.add_option("--device", options.device, "cpu, or a GPU's UUID or index");
  app.add_option("--threads", options.threads, "0: one per usable core");
  app.add_option("--runs", options.runs, "each figure is the median of so many")
      ->check(CLI::PositiveNumber);
  app.add_flag("--json", options.json, "one JSON document");
}

// Grows and shrinks the residency of one image.
class Swapper {
 public:
  Swapper(worker::Device& device, const Buffer& master)
      : bytes_(static_cast<uint64_t>(master.bytes())) {
    auto made = worker::Residency::Create(device, bytes_,
                                          static_cast<uint64_t>(options.chunk_mebibytes) << 20);
    if (!made.ok()) {
      status_ = made.status();
      return;
    }
    residency_ = *std::move(made);
    residency_->SetObserver([this] {
      std::lock_guard lock(mutex_);
      changed_.notify_all();
    });
    residency_->SetSource(std::make_shared<worker::MasterSource>(
        std::span(reinterpret_cast<const std::byte*>(master.data()), bytes_)));
  }

  const absl::Status& status() const { return status_; }

  // Seconds until the whole image is resident.
  double Grow() {
    const double start = Now();
    Set(bytes_);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return residency_->settled(); });
    if (!residency_->error().ok()) status_ = residency_->error();
    return Now() - start;
  }
  double Shrink() {
    const double start = Now();
    Set(0);
    return Now() - start;
  }

 private:
  void Set(uint64_t bytes) {
    if (absl::Status set = residency_->SetTarget(bytes); !set.ok()) status_ = set;
  }

  const uint64_t bytes_;
  absl::Status status_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<worker::Residency> residency_;
};

// A GPU's limit is the copy itself: from registered memory, in pieces that saturate the bus, into
// `bytes` of memory that are there already. GB/s.
absl::StatusOr<double> MeasureUpload(worker::Device& device, const Buffer& from, void* to,
                                     int64_t bytes) {
  constexpr int64_t kPiece = 16 << 20;
  const double start = Now();
  for (int64_t at = 0; at < bytes; at += kPiece) {
    const auto piece = static_cast<uint64_t>(std::min(kPiece, bytes - at));
    RETURN_IF_ERROR(
        device.Upload(static_cast<char*>(to) + at, from.data() + at, piece, device.copy_stream()));
  }
  RETURN_IF_ERROR(device.Synchronize(device.copy_stream()));
  return static_cast<double>(bytes) / 1e9 / (Now() - start);
}

absl::Status MeasureOnGpu() {
  worker::SelectDevice(options.device);
  ASSIGN_OR_RETURN(worker::Backend backend, worker::OpenBackend(options.device, 1));
  worker::Device& device = *backend.device;
  const Buffer master(options.mebibytes << 20);
  const auto bytes = static_cast<uint64_t>(master.bytes());
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  RETURN_IF_ERROR(device.RegisterHost(master.data(), bytes));
  Swapper swapper(device, master);
  const int64_t copied = std::min<int64_t>(master.bytes(), 8ll << 30);
  ASSIGN_OR_RETURN(auto target, device.Allocate(static_cast<uint64_t>(copied)));
  std::vector<double> grow, at_once, shrink, copy;
  double first = 0;
  for (int i = 0; i <= options.runs; ++i) {
    const double seconds = swapper.Grow();
    if (i == 0) {
      first = gigabytes / seconds;
    } else {
      grow.push_back(seconds);
    }
    // Not after memory was given back: the driver clears it then, and copies wait for that.
    ASSIGN_OR_RETURN(const double rate, MeasureUpload(device, master, target->data(), copied));
    copy.push_back(rate);
    shrink.push_back(swapper.Shrink());
    const double again = swapper.Grow();
    if (i > 0) at_once.push_back(again);
    swapper.Shrink();
    RETURN_IF_ERROR(swapper.status());
    // Cleared by now.
    RETURN_IF_ERROR(MeasureUpload(device, master, target->data(), copied).status());
  }
  Report report("swap of " + std::to_string(options.mebibytes) + " MiB in chunks of " +
                    std::to_string(options.chunk_mebibytes) + " MiB, " + options.device,
                options.json);
  report.Add("becoming resident", gigabytes / Median(grow), "GB/s", Median(copy),
             "copy from registered memory");
  report.Add("the same as soon as it was given back", gigabytes / Median(at_once), "GB/s",
             Median(copy), "copy from registered memory");
  report.Add("beyond the copy", (Median(grow) - gigabytes / Median(copy)) * 1e3, "ms");
  report.Add("while it is being registered", first, "GB/s");
  report.Add("release", Median(shrink) * 1e3, "ms");
  report.Print();
  return device.UnregisterHost(master.data());
}

int RunOnGpu() {
  const absl::Status status = MeasureOnGpu();
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}

int Run() {
  if (options.device != "cpu") return RunOnGpu();
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  const Buffer master(options.mebibytes << 20);
  const double gigabytes = static_cast<double>(master.bytes()) / 1e9;
  std::unique_ptr<worker::Device> device = worker::MakeCpuDevice(threads);
  Swapper swapper(*device, master);
  std::vector<double> grow, shrink, copy, fresh, touch;
  for (int i = 0; i < options.runs && swapper.status().ok(); ++i) {
    fresh.push_back(MeasureCopyToFreshPages(master, master.bytes(), threads));
    touch.push_back(MeasureFirstTouch(master.bytes(), threads));
    {
      Buffer target(master.bytes());
      copy.push_back(MeasureCopy(master, target, threads));
    }
    grow.push_back(gigabytes / swapper.Grow());
    shrink.push_back(swapper.Shrink());
  }
  if (!swapper.status().ok()) {
    std::fprintf(stderr, "%s\n", std::string(swapper.status().message()).c_str());
    return 1;
  }
  Report report("swap of " + std::to_string(options.mebibytes) + " MiB in chunks of " +
                    std::to_string(options.chunk_mebibytes) + " MiB, " + std::to_string(threads) +
                    " threads",
                options.json);
  report.Add("becoming resident", Median(grow), "GB/s", Median(copy), "memory copy");
  report.Add("becoming resident", Median(grow), "GB/s", Median(fresh),
             "memory copy into fresh huge pages");
  // Whoever copies into fresh memory waits for the kernel's zeros first.
  const double bound = 1 / (1 / Median(touch) + 1 / Median(copy));
  report.Add("fresh huge pages, touched only", Median(touch), "GB/s");
  report.Add("becoming resident", Median(grow), "GB/s", bound, "touch, then copy");
  report.Add("release", Median(shrink) * 1e3, "ms");
  report.Print();
  return 0;
}

}  // namespace

const Subcommand kSwapCommand = {"swap", "residency beside the copy rate", AddOptions, Run};

}  // namespace switchyard::bench
