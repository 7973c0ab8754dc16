#include <algorithm>

#include "kernels/cuda/batch_parts.cuh"
#include "kernels/cuda/qkv_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 64;  // a block finds room beside those of the product
template <Output kOutput>
constexpr bool kPairs = kOutput == Output::kGateUp || kOutput == Output::kQkv;
template <Output kOutput>
constexpr int kEach = kBatchN / (kPairs<kOutput> ? 8 : 4);  // fours of a tile's row
constexpr int kMostSplits = 8;

// Results of row r of x: of four weight rows from `column` of a tile on, or of four pairs of them.
// Where they go is looked up while the product runs, what they are added to asked for with the
// parts.
template <Output kOutput>
class FourResults {
 public:
  __device__ FourResults(const MatmulArgs& a, int64_t tile, int64_t r, int column)
      : a_(a), tile_(tile), r_(r), column_(column) {
    if constexpr (kOutput == Output::kQkv) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t pair = tile * (kBatchN / 2) + column + j;
        target_[j] = {};
        if (pair >= a.n / 2) continue;
        target_[j] = TargetOfPair(a, static_cast<int32_t>(pair), static_cast<int32_t>(r));
      }
    }
    if constexpr (kOutput == Output::kBf16) {
      const int64_t n = tile * kBatchN + column;
      Bf16* out = static_cast<Bf16*>(a.out) + r * a.n + n;
      if (n < a.n && a.n % 4 == 0 && a.bias == nullptr &&
          reinterpret_cast<uintptr_t>(out) % sizeof(uint2) == 0) {
        whole_ = reinterpret_cast<uint2*>(out);
      }
    }
  }

  // What kernels in front have written.
  __device__ void LoadBefore() {
    if (whole_ != nullptr && a_.accumulate) before_ = *whole_;
  }

  __device__ void Store(float4 first, float4 second) const {
    if constexpr (kOutput == Output::kQkv) {
      StoreQkv(target_[0], first.x, second.x);
      StoreQkv(target_[1], first.y, second.y);
      StoreQkv(target_[2], first.z, second.z);
      StoreQkv(target_[3], first.w, second.w);
    } else if (whole_ != nullptr) {
      *whole_ = {Pack(first.x + Low(before_.x), first.y + High(before_.x)),
                 Pack(first.z + Low(before_.y), first.w + High(before_.y))};
    } else {
      StorePair<kOutput, kBatchN>(a_, tile_, r_, column_, {first.x, first.y}, {second.x, second.y});
      StorePair<kOutput, kBatchN>(a_, tile_, r_, column_ + 2, {first.z, first.w},
                                  {second.z, second.w});
    }
  }

 private:
  const MatmulArgs& a_;
  const int64_t tile_, r_;
  const int column_;
  QkvTarget target_[kOutput == Output::kQkv ? 4 : 1];
  uint2* whole_ = nullptr;  // all four together, without a bias
  uint2 before_ = {0, 0};
};

// Four weight rows, or pairs of them, of one row of x a thread.
template <Output kOutput>
__global__ __launch_bounds__(kThreads) void Add(const MatmulArgs a, int m, const BatchParts parts) {
  constexpr int kN = kBatchN;
  constexpr int kRow = kEach<kOutput>;
  GridTrigger();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t r = i / (int64_t{parts.tiles} * kRow), tile = i / kRow % parts.tiles;
  const int column = static_cast<int>(i % kRow) * 4;
  if (r >= a.rows) return GridWait();
  FourResults<kOutput> results(a, tile, r, column);
  GridWait();
  results.LoadBefore();
  const int at = kPairs<kOutput> ? column / 8 * 16 + column % 8 : column;
  const float* from = parts.data + (tile * m + r) * kN + at;
  // All of them are asked for before the first is there.
  float4 part[kMostSplits][kPairs<kOutput> ? 2 : 1];
#pragma unroll
  for (int s = 0; s < kMostSplits; ++s, from += int64_t{parts.tiles} * m * kN) {
    if (s >= parts.splits) break;
    part[s][0] = *reinterpret_cast<const float4*>(from);
    if constexpr (kPairs<kOutput>) part[s][1] = *reinterpret_cast<const float4*>(from + 8);
  }
  float4 first = {0, 0, 0, 0}, second = {0, 0, 0, 0};
  const auto add = [](float4& sum, const float4& v) {
    sum = {sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w};
  };
#pragma unroll
  for (int s = 0; s < kMostSplits; ++s) {
    if (s >= parts.splits) break;
    add(first, part[s][0]);
    if constexpr (kPairs<kOutput>) add(second, part[s][1]);
  }
  results.Store(first, second);
}

template <Output kOutput>
OpError Run(const MatmulArgs& a, int m, const BatchParts& parts, const LaunchContext& context) {
  const int64_t adders = int64_t{a.rows} * parts.tiles * kEach<kOutput>;
  return Launch(context, static_cast<unsigned>((adders + kThreads - 1) / kThreads), kThreads, 0,
                Add<kOutput>, a, m, parts);
}

// So many parts that the blocks are about as many as run at the same time; of bf16 and more than 32
// rows no more than four where those fill the device: adding up costs too.
int Splits(const MatmulArgs& a, int64_t tiles, int multiprocessors) {
  const int64_t slots = 2 * int64_t{multiprocessors};
  if (tiles >= multiprocessors) return 1;
  const int64_t least = a.rows <= 32 || !IsPlain(a.dtype) ? kMostSplits : 4;
  const int64_t most = std::clamp<int64_t>(multiprocessors / tiles, least, kMostSplits);
  return static_cast<int>(std::clamp<int64_t>(slots / tiles, 1, most));
}

}  // namespace

BatchParts PlanParts(const MatmulArgs& a, int m, int steps, int least, int multiprocessors) {
  BatchParts parts;
  parts.tiles = static_cast<int>((a.n + kBatchN - 1) / kBatchN);
  const int64_t bytes = int64_t{parts.tiles} * m * kBatchN * static_cast<int64_t>(sizeof(float));
  const int wanted = std::clamp(steps / least, 1, Splits(a, parts.tiles, multiprocessors));
  parts.splits = static_cast<int>(std::clamp<int64_t>(a.workspace.bytes / bytes, 1, wanted));
  parts.steps_each = (steps + parts.splits - 1) / parts.splits;
  parts.splits = (steps + parts.steps_each - 1) / parts.steps_each;
  if (parts.splits > 1) parts.data = static_cast<float*>(a.workspace.data);
  return parts;
}

OpError AddParts(const MatmulArgs& a, int m, const BatchParts& parts,
                 const LaunchContext& context) {
  return ForBatchOutput(
      a.output, [&](auto output) { return Run<decltype(output)::value>(a, m, parts, context); });
}

int64_t BatchWorkspaceBytes(int32_t rows, int multiprocessors) {
  const int64_t m = rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : 128;
  return 2 * int64_t{multiprocessors} * m * kBatchN * static_cast<int64_t>(sizeof(float));
}

}  // namespace switchyard::kernels::cuda
