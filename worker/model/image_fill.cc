// Fills an image from a checkpoint: large ranges are read straight into place, the rest goes
// through tiles of at most a few MiB. Reads are spread over threads, in order of the image.

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/status_macros.h"
#include "worker/model/image.h"
#include "worker/model/image_elements.h"
#include "worker/model/image_packed.h"
#include "worker/model/image_quantize.h"
#include "worker/model/ordered_jobs.h"
#include "worker/model/widen.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kJobBytes = uint64_t{8} << 20;
constexpr uint64_t kTileBytes = uint64_t{1} << 20;
constexpr uint64_t kMostTileRows = 256;

// Units [begin, end) of one source. A unit is an element; for transforms that permute within a
// row, a row of the source; for quantized matrices what image_packed.h and image_quantize.h say.
struct Job {
  const ImageTensor* tensor = nullptr;
  const ImageSource* source = nullptr;
  TensorType type = TensorType::kF32;
  uint64_t begin = 0, end = 0;
  uint64_t prefix = 0;  // of the image, complete when this job and all before it are done
};

// [rows][n] of tile, which are input features [first, first + rows) of one expert, to columns of
// its matrix [n][k].
template <typename Element>
void TransposeTile(const Element* tile, uint64_t rows, uint64_t first, uint64_t n, uint64_t k,
                   bool deinterleave, Element* matrix) {
  for (uint64_t j = 0; j < n; ++j) {
    Element* to = matrix + (deinterleave ? Deinterleaved(j, n) : j) * k + first;
    for (uint64_t i = 0; i < rows; ++i) to[i] = tile[i * n + j];
  }
}

bool Transposes(Transform transform) {
  return transform == Transform::kTranspose || transform == Transform::kTransposeDeinterleave;
}

class Filler {
 public:
  Filler(const ImageLayout& layout, const Checkpoint& checkpoint, std::span<std::byte> image)
      : layout_(layout), checkpoint_(checkpoint), image_(image) {}

  absl::Status Fill(const std::function<bool(uint64_t)>& progress) {
    if (image_.size() < layout_.bytes) return absl::InvalidArgumentError("image: too few bytes");
    errors_.resize(layout_.tensors.size());
    for (const ImageTensor& tensor : layout_.tensors) RETURN_IF_ERROR(AddJobs(tensor));
    ZeroGaps();
    RETURN_IF_ERROR(RunInOrder(
        jobs_.size(), [this](size_t i) { return Run(jobs_[i]); },
        [&](size_t leading) {
          const bool all = leading == jobs_.size();
          return !progress || progress(all ? layout_.bytes : jobs_[leading - 1].prefix);
        }));
    return absl::OkStatus();
  }

  FillReport Report() const {
    FillReport report;
    for (size_t i = 0; i < errors_.size(); ++i) {
      const ImageTensor& tensor = layout_.tensors[i];
      if (!tensor.quantize) continue;
      report.error += errors_[i];
      if (!report.worst_name.empty() && errors_[i].Relative() <= report.worst) continue;
      report.worst = errors_[i].Relative();
      report.worst_name = absl::StrCat("layer ", tensor.layer, " ", RoleName(tensor.role));
    }
    return report;
  }

 private:
  absl::Status AddJobs(const ImageTensor& tensor) {
    for (const ImageSource& source : tensor.sources) {
      const TensorInfo* info = checkpoint_.Find(source.tensor);
      if (info == nullptr) {
        return absl::InternalError(absl::StrCat("image: no tensor ", QuotedName(source.tensor)));
      }
      if (tensor.quantize) {
        AddQuantizeJobs(tensor, source, info->type);
      } else if (IsPacked(source.transform)) {
        AddPackedJobs(tensor, source, info->type);
      } else if (Transposes(source.transform)) {
        AddRowJobs(tensor, source, info->type);
      } else {
        AddElementJobs(tensor, source, info->type);
      }
    }
    return absl::OkStatus();
  }

  void AddElementJobs(const ImageTensor& tensor, const ImageSource& source, TensorType type) {
    const uint64_t element = ElementBytes(tensor);
    // Whole rows where elements move within a row.
    const uint64_t unit =
        source.transform == Transform::kDeinterleave ? static_cast<uint64_t>(tensor.k) : 1;
    const uint64_t count = source.bytes / element;
    const uint64_t step = RoundUp(std::max<uint64_t>(1, kJobBytes / element), unit);
    for (uint64_t at = 0; at < count; at += step) {
      const uint64_t end = std::min(count, at + step);
      jobs_.push_back(
          {&tensor, &source, type, at, end, tensor.offset + source.offset + end * element});
    }
  }

  // A row of the source is one input feature of one expert; a job stays within its expert.
  void AddRowJobs(const ImageTensor& tensor, const ImageSource& source, TensorType type) {
    const uint64_t k = static_cast<uint64_t>(tensor.k);
    const uint64_t row = static_cast<uint64_t>(kernels::DTypeBytes(tensor.dtype, tensor.n));
    const uint64_t step = std::clamp<uint64_t>(kTileBytes / row, 1, kMostTileRows);
    for (uint64_t expert = 0; expert < static_cast<uint64_t>(tensor.batch); ++expert) {
      for (uint64_t at = 0; at < k; at += step) {
        const uint64_t end = std::min(k, at + step);
        const uint64_t complete = end == k ? expert + 1 : expert;
        jobs_.push_back({&tensor, &source, type, expert * k + at, expert * k + end,
                         tensor.offset + source.offset + complete * k * row});
      }
    }
  }

  void AddPackedJobs(const ImageTensor& tensor, const ImageSource& source, TensorType type) {
    const PackedWork work = PackedWorkOf(tensor, source);
    for (uint64_t at = 0; at < work.units; at += work.step) {
      const uint64_t end = std::min(work.units, at + work.step);
      jobs_.push_back({&tensor, &source, type, at, end,
                       tensor.offset + source.offset + PackedBytesDone(tensor, source, end)});
    }
  }

  // The scales behind the numbers are complete when the next tensor's first job is.
  void AddQuantizeJobs(const ImageTensor& tensor, const ImageSource& source, TensorType type) {
    const QuantizeWork work = QuantizeWorkOf(tensor, source);
    for (uint64_t at = 0; at < work.units; at += work.step) {
      const uint64_t end = std::min(work.units, at + work.step);
      jobs_.push_back(
          {&tensor, &source, type, at, end, tensor.offset + source.offset + end * work.unit_bytes});
    }
  }

  absl::Status Run(const Job& job) { return InCheckpoint(checkpoint_, RunJob(job)); }

  absl::Status RunJob(const Job& job) {
    if (job.tensor->quantize) return Quantize(job);
    std::byte* to = image_.data() + job.tensor->offset + job.source->offset;
    const Transform transform = job.source->transform;
    if (IsElementwise(transform)) {
      return FillElements(checkpoint_, *job.source, job.begin, job.end,
                          to + job.begin * ElementBytes(*job.tensor));
    }
    if (transform == Transform::kDeinterleave) {
      return Deinterleave(job, reinterpret_cast<float*>(to));
    }
    if (Transposes(transform)) return Transpose(job, to);
    return FillPacked(checkpoint_, *job.tensor, *job.source, job.begin, job.end, to);
  }

  absl::Status Quantize(const Job& job) {
    const size_t index = static_cast<size_t>(job.tensor - layout_.tensors.data());
    ASSIGN_OR_RETURN(const QuantizationError error,
                     FillQuantized(checkpoint_, *job.tensor, layout_.tensors[index + 1],
                                   *job.source, job.begin, job.end, image_));
    std::lock_guard lock(mutex_);
    errors_[index] += error;
    return absl::OkStatus();
  }

  absl::Status Deinterleave(const Job& job, float* to) {
    const uint64_t element = static_cast<uint64_t>(TensorTypeBits(job.type)) / 8;
    std::vector<std::byte> tile((job.end - job.begin) * element);
    RETURN_IF_ERROR(checkpoint_.Read(job.source->tensor, job.begin * element, tile));
    const uint64_t width = static_cast<uint64_t>(job.tensor->k);
    for (uint64_t at = job.begin; at < job.end; ++at) {
      to[at / width * width + Deinterleaved(at % width, width)] =
          Widen(tile.data(), job.type, at - job.begin);
    }
    return absl::OkStatus();
  }

  absl::Status Transpose(const Job& job, std::byte* to) {
    return TensorTypeBits(job.type) == 32 ? TransposeOf<uint32_t>(job, to)
                                          : TransposeOf<uint16_t>(job, to);
  }

  template <typename Element>
  absl::Status TransposeOf(const Job& job, std::byte* to) {
    const uint64_t n = static_cast<uint64_t>(job.tensor->n);
    const uint64_t k = static_cast<uint64_t>(job.tensor->k);
    std::vector<Element> tile((job.end - job.begin) * n);
    RETURN_IF_ERROR(checkpoint_.Read(job.source->tensor, job.begin * n * sizeof(Element),
                                     std::as_writable_bytes(std::span(tile))));
    TransposeTile(tile.data(), job.end - job.begin, job.begin % k, n, k,
                  job.source->transform == Transform::kTransposeDeinterleave,
                  reinterpret_cast<Element*>(to) + job.begin / k * n * k);
    return absl::OkStatus();
  }

  // What lies between tensors, so that equal weights make equal images.
  void ZeroGaps() {
    uint64_t at = 0;
    for (const ImageTensor& tensor : layout_.tensors) {
      std::memset(image_.data() + at, 0, tensor.offset - at);
      at = tensor.offset + tensor.bytes;
    }
    std::memset(image_.data() + at, 0, layout_.bytes - at);
  }

  const ImageLayout& layout_;
  const Checkpoint& checkpoint_;
  std::span<std::byte> image_;
  std::vector<Job> jobs_;
  std::mutex mutex_;
  std::vector<QuantizationError> errors_;  // by tensor
};

}  // namespace

absl::Status FillImage(const ImageLayout& layout, const Checkpoint& checkpoint,
                       std::span<std::byte> image, const std::function<bool(uint64_t)>& progress,
                       FillReport* report) {
  Filler filler(layout, checkpoint, image);
  RETURN_IF_ERROR(filler.Fill(progress));
  if (report != nullptr) *report = filler.Report();
  return absl::OkStatus();
}

}  // namespace switchyard::worker
