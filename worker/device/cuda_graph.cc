#include "worker/device/cuda_graph.h"

#include <type_traits>

#include "common/status_macros.h"
#include "worker/device/cuda_driver.h"

namespace switchyard::worker {
namespace {

class CudaGraph final : public Graph {
 public:
  explicit CudaGraph(cudaGraphExec_t executable) : executable_(executable) {}
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  absl::Status Launch(StreamHandle stream) override {
    return CudaStatus(cudaGraphLaunch(executable_, static_cast<cudaStream_t>(stream)),
                      "launching a graph");
  }

 private:
  cudaGraphExec_t executable_;
};

// Uploaded at once: the first launch then takes no longer than any other.
absl::StatusOr<std::unique_ptr<Graph>> Instantiate(cudaGraph_t graph, cudaStream_t stream) {
  cudaGraphExec_t executable = nullptr;
  RETURN_IF_ERROR(CudaStatus(cudaGraphInstantiate(&executable, graph, 0), "making a graph"));
  auto made = std::make_unique<CudaGraph>(executable);
  RETURN_IF_ERROR(CudaStatus(cudaGraphUpload(executable, stream), "uploading a graph"));
  return made;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Graph>> CaptureCudaGraph(
    cudaStream_t stream, const std::function<absl::Status()>& launch) {
  // Of this thread alone: others register and copy masters meanwhile.
  RETURN_IF_ERROR(CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                             "beginning to capture"));
  const absl::Status launched = launch();
  cudaGraph_t graph = nullptr;
  // Whatever became of the launches: else the stream stays in capture and runs nothing any more.
  const absl::Status ended = CudaStatus(cudaStreamEndCapture(stream, &graph), "capturing a graph");
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, decltype(&cudaGraphDestroy)> owner(
      graph, &cudaGraphDestroy);
  RETURN_IF_ERROR(launched);
  RETURN_IF_ERROR(ended);
  return Instantiate(graph, stream);
}

}  // namespace switchyard::worker
