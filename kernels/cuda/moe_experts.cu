// out (+)= sum over a row's K experts of weight * down_e activation(gate_up_e x), in the order of
// ids.
//
// An entry is a (row, choice). Few rows: each entry is a matrix-vector product of its expert, so
// that only the chosen experts' bytes are read. More: entries are grouped by expert on the device
// and go through tiles of 64 or 128 rows of one expert. Either way an entry's down result lies on
// its own until the last kernel adds them in the order of ids, whatever else is in the batch.
//
// One row's experts are summed up by the down product itself, tile by tile, where that leaves no
// block more to do (SumsEntries): a kernel less to wait for.
//
// A shared expert of the others' shape and format is one more entry of each of few rows: two
// products less, with the delays of their chain. Else it is computed by itself.

#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"
#include "kernels/shared_expert.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAtOnce = 8;  // experts whose results are on their way together

// Inclusive sums over the block's kMostExperts threads.
__device__ int32_t Scan(int32_t value, int32_t* shared) {
  const int i = threadIdx.x;
  shared[i] = value;
  __syncthreads();
  for (int offset = 1; offset < kMostExperts; offset *= 2) {
    const int32_t other = i >= offset ? shared[i - offset] : 0;
    __syncthreads();
    shared[i] += other;
    __syncthreads();
  }
  const int32_t sum = shared[i];
  __syncthreads();
  return sum;
}

// One block, a thread an expert. The order of entries within an expert does not matter: each is
// computed on its own.
__global__ __launch_bounds__(kMostExperts) void GroupByExpert(const int32_t* ids, int32_t entries,
                                                              int32_t tile_rows, MoeScratch s) {
  __shared__ int32_t count[kMostExperts], shared[kMostExperts];
  GridTrigger();
  GridWait();
  const int e = threadIdx.x;
  count[e] = 0;
  __syncthreads();
  for (int32_t i = e; i < entries; i += kMostExperts) atomicAdd(&count[ids[i]], 1);
  __syncthreads();
  const int32_t own = count[e], first = Scan(own, shared) - own;
  const int32_t tiles = (own + tile_rows - 1) / tile_rows;
  const int32_t end_tile = Scan(tiles, shared), first_tile = end_tile - tiles;
  for (int32_t t = 0; t < tiles; ++t) {
    s.tile_expert[first_tile + t] = e;
    s.tile_first[first_tile + t] = first + t * tile_rows;
    s.tile_rows[first_tile + t] = min(tile_rows, own - t * tile_rows);
  }
  shared[e] = end_tile;
  count[e] = first;
  __syncthreads();
  for (int32_t t = shared[kMostExperts - 1] + e; t < s.tiles; t += kMostExperts) {
    s.tile_expert[t] = -1;
  }
  for (int32_t i = e; i < entries; i += kMostExperts) s.entry[atomicAdd(&count[ids[i]], 1)] = i;
}

// `each`: entries of a row, the chosen ones and perhaps the shared expert's.
__global__ __launch_bounds__(kThreads) void AddChosen(const MoeExpertsArgs a, int32_t first_row,
                                                      int32_t each, const float* down) {
  GridTrigger();
  GridWait();
  const int64_t hidden = a.down.n, n = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (n >= hidden) return;
  const int64_t row = first_row + blockIdx.y;
  Bf16* out = static_cast<Bf16*>(a.out) + row * hidden + n;
  float sum = a.accumulate ? __bfloat162float(*out) : 0.0f;
  const float* weights = a.weights + row * a.chosen;
  down += int64_t{blockIdx.y} * each * hidden + n;
  for (int first = 0; first < each; first += kAtOnce) {
    float weight[kAtOnce], part[kAtOnce];
#pragma unroll
    for (int c = 0; c < kAtOnce; ++c) {
      weight[c] = first + c < a.chosen ? weights[first + c] : 1.0f;
      part[c] = first + c < each ? down[(first + c) * hidden] : 0.0f;
    }
#pragma unroll
    for (int c = 0; c < kAtOnce; ++c) {
      if (first + c < each) sum = fmaf(weight[c], part[c], sum);
    }
  }
  *out = __float2bfloat16_rn(sum);
}

// Whether entries are grouped by expert: where a tile of an expert costs less than its entries one
// by one. Quantized entries are cheap to read and dear to tile.
bool GroupsExperts(const MoeExpertsArgs& a, int64_t rows) {
  return IsPlain(a.gate_up.dtype) ? rows > kEachExpertRows : rows * a.chosen > 2 * a.gate_up.batch;
}

// bf16 has tiles of 128 rows alone.
int32_t TileRowsOf(const MoeExpertsArgs& a, int64_t entries) {
  return IsPlain(a.gate_up.dtype) || entries >= a.gate_up.batch * kSmallTileRows ? kTileRows
                                                                                 : kSmallTileRows;
}

bool SameForm(const Matrix& expert, const Matrix& shared) {
  return shared.n == expert.n && shared.k == expert.k && shared.dtype == expert.dtype &&
         shared.group == expert.group && (shared.zeros == nullptr) == (expert.zeros == nullptr) &&
         Aligned(shared.data) && Aligned(shared.scales) && Aligned(shared.zeros);
}

// Whether the shared expert can be one more of a row's entries, as far as its weights go.
bool TakesShared(const MoeExpertsArgs& a) {
  return a.shared_gate_up.data != nullptr && a.rows <= kSharedEntryRows &&
         SameForm(a.gate_up, a.shared_gate_up) && SameForm(a.down, a.shared_down) &&
         a.gate_up_bias == nullptr && a.down_bias == nullptr;
}

SharedExpert SharedOf(const Matrix& w, int32_t every) { return {w.data, w.scales, w.zeros, every}; }

MatmulArgs GateUpOf(const MoeExpertsArgs& a, const MoeScratch& s) {
  MatmulArgs in;
  in.x = static_cast<const Bf16*>(a.x);
  in.x_divide = a.chosen;
  SetWeights(in, a.gate_up);
  in.bias = a.gate_up_bias;
  in.output = Output::kGateUp;
  in.activation = a.activation;
  in.out = s.inner;
  return in;
}

MatmulArgs DownOf(const MoeExpertsArgs& a, const MoeScratch& s) {
  MatmulArgs out;
  out.x = s.inner;
  SetWeights(out, a.down);
  out.bias = a.down_bias;
  out.output = Output::kF32;
  out.out = s.down;
  return out;
}

// The sum of one row's entries instead, where it belongs.
void SumInto(MatmulArgs& out, const MoeExpertsArgs& a, int32_t row) {
  out.output = Output::kChosen;
  out.weights = a.weights + int64_t{row} * a.chosen;
  out.accumulate = a.accumulate;
  out.out = static_cast<Bf16*>(a.out) + row * a.down.n;
}

}  // namespace

OpError CudaOps::MoeExperts(const MoeExpertsArgs& args, Scratch scratch, Stream stream) {
  const int64_t experts = args.gate_up.batch, hidden = args.gate_up.k;
  if (experts > kMostExperts) return {"more experts than the CUDA kernels hold"};
  const LaunchContext context = Context(stream);
  ScratchCutter cut(scratch);
  MoeScratch s;
  s.Take(cut, args.rows, args.chosen, experts, args.gate_up.n / 2, hidden);
  if (!cut.ok()) return kScratchTooSmall;

  MatmulArgs in = GateUpOf(args, s), out = DownOf(args, s);
  bool shared = false;
  for (int32_t first = 0; first < args.rows; first += kRowChunk) {
    const int32_t rows = std::min(kRowChunk, args.rows - first), entries = rows * args.chosen;
    const int32_t* ids = args.ids + int64_t{first} * args.chosen;
    in.x = static_cast<const Bf16*>(args.x) + first * hidden;
    in.rows = out.rows = entries;
    in.expert = out.expert = ids;
    in.tiles = out.tiles = {};  // the last rows of many may be too few to be grouped
    const bool grouped = GroupsExperts(args, rows);
    const bool streams = !grouped && Streams(in, context);
    out.experts_known = streams;
    if (grouped) {
      const int32_t tile_rows = TileRowsOf(args, entries);
      SWITCHYARD_RETURN_IF_OP_ERROR(
          Launch(context, 1, kMostExperts, 0, GroupByExpert, ids, entries, tile_rows, s));
      in.tiles =
          out.tiles = {s.entry, s.tile_expert, s.tile_first, s.tile_rows, s.tiles, tile_rows};
    }
    shared = streams && Streams(out, context) && TakesShared(args);
    const int32_t each = args.chosen + (shared ? 1 : 0);
    if (shared) {
      in.rows = out.rows = rows * each;
      in.x_divide = each;
      in.shared = SharedOf(args.shared_gate_up, each);
      out.shared = SharedOf(args.shared_down, each);
    }
    const bool sums = streams && rows == 1 && SumsChosen(out, context);
    if (sums) SumInto(out, args, first);
    SWITCHYARD_RETURN_IF_OP_ERROR(Product(in, context));
    SWITCHYARD_RETURN_IF_OP_ERROR(Product(out, context));
    if (sums) continue;
    const dim3 grid(static_cast<unsigned>((hidden + kThreads - 1) / kThreads), rows);
    SWITCHYARD_RETURN_IF_OP_ERROR(
        Launch(context, grid, kThreads, 0, AddChosen, args, first, each, s.down));
  }
  return shared ? OpError{} : AddSharedExpert(*this, args, scratch, stream);
}

}  // namespace switchyard::kernels::cuda
