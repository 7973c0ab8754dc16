#include "worker/engine/decode_graphs.h"

#include <utility>

#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::worker {

DecodeGraphs::DecodeGraphs(Device& device, const std::vector<int32_t>& sizes, bool capture,
                           Forward forward)
    : device_(device), capture_(capture), forward_(std::move(forward)), schedule_(sizes) {}

absl::Status DecodeGraphs::Launch(int32_t size) {
  if (capture_ && schedule_.DueInFrontOf(size)) Capture(size);
  if (const auto found = graphs_.find(size); found != graphs_.end()) {
    return found->second->Launch(device_.compute_stream());
  }
  schedule_.RanEagerly(size);
  return forward_(size);
}

absl::Status DecodeGraphs::CaptureOne(int32_t size) {
  absl::Status ran = forward_(size);
  // Whatever became of it: the host's side of the inputs is filled in anew after this.
  const absl::Status passed = device_.Synchronize(device_.compute_stream());
  if (ran.ok()) ran = passed;
  if (!ran.ok()) {
    schedule_.Failed(size);
    return ran;
  }
  Capture(size);
  return absl::OkStatus();
}

void DecodeGraphs::Capture(int32_t size) {
  absl::StatusOr<std::unique_ptr<Graph>> graph = device_.Capture(
      device_.compute_stream(), [forward = forward_, size] { return forward(size); });
  if (!graph.ok()) {
    LogWarning("steps of ", size, " rows run without a graph: ", graph.status().ToString());
    schedule_.Failed(size);
    return;
  }
  graphs_[size] = *std::move(graph);
  schedule_.Captured(size);
}

}  // namespace switchyard::worker
