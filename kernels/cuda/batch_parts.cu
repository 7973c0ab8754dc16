#include <algorithm>

#include "kernels/cuda/batch_parts.cuh"
#include "kernels/cuda/qkv_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 64;  // a block finds room beside those of the product
constexpr int kMostSplits = 8;
template <Output kOutput>
constexpr bool kPairs = kOutput == Output::kGateUp || kOutput == Output::kQkv;
template <Output kOutput>
constexpr int kEach = kBatchN / (kPairs<kOutput> ? 8 : 4);  // threads of a tile's row

// Four weight rows, or pairs of them, of one row of x a thread.
template <Output kOutput>
__global__ __launch_bounds__(kThreads) void Add(const MatmulArgs a, int m, const BatchParts parts) {
  constexpr int kN = kBatchN;
  constexpr int kRow = kEach<kOutput>;
  GridTrigger();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t r = i / (int64_t{parts.tiles} * kRow), tile = i / kRow % parts.tiles;
  const int column = static_cast<int>(i % kRow) * 4;
  GridWait();
  if (r >= a.rows) return;
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
  if constexpr (kOutput == Output::kQkv) {
    const float low[4] = {first.x, first.y, first.z, first.w};
    const float high[4] = {second.x, second.y, second.z, second.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t pair = tile * (kN / 2) + column + j;
      if (pair >= a.n / 2) return;
      StoreQkv(TargetOfPair(a, static_cast<int32_t>(pair), static_cast<int32_t>(r)), low[j],
               high[j]);
    }
  } else {
    StorePair<kOutput, kN>(a, tile, r, column, {first.x, first.y}, {second.x, second.y});
    StorePair<kOutput, kN>(a, tile, r, column + 2, {first.z, first.w}, {second.z, second.w});
  }
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
