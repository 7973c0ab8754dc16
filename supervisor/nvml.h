#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "supervisor/device_sample.h"

namespace switchyard::supervisor {

struct Gpu {
  std::string uuid;  // "GPU-..."
  std::string name;  // "NVIDIA H200"
  uint64_t total_bytes = 0;
  uint64_t driver_bytes = 0;  // reserved by the driver: never anybody's
  uint64_t used_bytes = 0;    // by processes, whoever they are
  int capability = 0;         // 90 for 9.0; 0: the driver does not say
  // What it does not answer, and why: it is lost, say, or not ours to open. What else is here then
  // is what it said before.
  absl::Status failure = absl::OkStatus();
};

// The driver's management library, opened at run time: the supervisor needs no CUDA, and holds no
// context.
class Nvml {
 public:
  // NOT_FOUND where there is no driver; any other error is of one that is there. `library`: a
  // stand-in's, for tests.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const char* library = "libnvidia-ml.so.1");
  ~Nvml();

  // In the driver's order: a GPU's place is its index. One that fails hides no other.
  absl::StatusOr<std::vector<Gpu>> Gpus() const;

  // What each GPU does at this moment, without `at`. A question that an old driver does not know,
  // or that a card does not answer (not every card counts its energy), is left unset by itself; a
  // GPU that does not answer at all is left out.
  std::vector<DeviceSample> Samples() const;

 private:
  struct Library;
  Gpu AskGpu(unsigned int index) const;
  explicit Nvml(std::unique_ptr<Library> library);
  std::unique_ptr<Library> library_;
};

}  // namespace switchyard::supervisor
