// y[r][n] = sum over k of w[n][k] x[r][k], for any number of rows with the same bits (see
// tile-inl.h).
//
// Parallel: the caller gives each thread one contiguous range of n, so a thread streams its own
// part of the weights.
//
// Few rows (decode): the weights are read once from memory, in their stored type, and bound by
// that. A thread's range is cut into kTileColumns strips that are walked side by side: each is one
// long sequential stream for the prefetcher, and there are as many independent sums as streams.
//
// Many rows (prefill): bound by multiply-add. A panel of 64 weight rows by 1024 columns is
// converted to float32 once (256 KiB, in L2) and used by up to kBlockRows rows; a tile of
// activations of one panel (24 KiB) stays in L1 while the weights pass by. Sums that go on in the
// next panel of columns keep their whole accumulator vector in scratch. Quantized weights go the
// same way whatever the number of rows; for few rows a panel is one tile of weights, so that it
// stays in L1 (16 KiB) between its conversion and its use (dequantize-inl.h).
//
// Reached on two cores of a Xeon with AVX-512 that other work kept busy, limits from the same run
// (switchyard-bench kernels): the weights of a 1.2B bf16 step at batch 1 82-87% of the read rate, 4
// rows 71-77%, 8 rows 54%, 16 rows 34%, where arithmetic binds; 512 rows 87-89% of oneDNN's
// float32 sgemm. Tried: buffers that are not aligned to a cache line (512 rows at 68%), panels from
// 7 rows on (8 rows at half the rate), a last tile of what is left over (8 rows as 6 and 2, slower
// than 4 and 4), one sum after the other instead of four at once (no difference here, but in
// attention).

#include "kernels/cpu/matmul.h"

#include <algorithm>

#include "kernels/cpu/hwy_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/matmul.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "kernels/cpu/tile-inl.h"
// After tile-inl.h.
#include "kernels/cpu/dequantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels {
namespace HWY_NAMESPACE {

// Up to here rows are multiplied straight from the stored weights, tile after tile while the weight
// rows are in L1; beyond, converting each weight once pays.
inline constexpr int64_t kDirectRows = 20;
inline constexpr int64_t kPanelColumns = 1024;               // of k
inline constexpr int64_t kPanelStride = kPanelColumns + 16;  // rows start in different cache sets
inline constexpr int64_t kPanelRows = 64;                    // of n
inline constexpr int64_t kBlockRows = 264;                   // of activations: 44 tiles of 6
inline constexpr int kPrefetchBytes = 1024;

HWY_INLINE void Store(const MatmulOutput& y, int64_t row, int64_t n, float sum) {
  if (y.bias != nullptr) sum += y.bias[n];
  float& out = y.data[row * y.stride + n - y.first];
  out = y.accumulate ? out + sum : sum;
}

// Sums `NT` accumulators, the columns n, n + n_step, ... of a row; keeps the first `kept`.
template <int NT>
HWY_INLINE void StoreSums(const FloatVec* acc, const MatmulOutput& y, int64_t row, int64_t n,
                          int64_t n_step, int64_t kept) {
  if constexpr (NT == 4) {
    float sums[4];
    SumFour(acc, sums);
    for (int i = 0; i < kept; ++i) Store(y, row, n + i * n_step, sums[i]);
  } else {
    for (int i = 0; i < kept; ++i) Store(y, row, n + i * n_step, Sum(acc[i]));
  }
}

HWY_INLINE const float* InputRow(const MatmulInput& x, int64_t row) {
  return x.data + (x.index != nullptr ? x.index[row] : row) * x.stride;
}

// All rows by NT weight rows, each w_step apart.
template <int NT, class W>
HWY_INLINE void DirectTile(const MatmulInput& x, const W* w, int64_t w_step, int64_t k, int64_t n,
                           int64_t n_step, const MatmulOutput& y) {
  const FloatTag d;
  const W* ws[NT];
  for (int i = 0; i < NT; ++i) ws[i] = w + i * w_step;
  const int64_t tiles = (x.rows + kTileRows - 1) / kTileRows;
  const int64_t tile_rows = (x.rows + tiles - 1) / tiles;  // 8 rows are 4 and 4, not 6 and 2
  for (int64_t r = 0; r < x.rows; r += tile_rows) {
    const int rows = static_cast<int>(std::min(tile_rows, x.rows - r));
    WithTileRows(rows, [&](auto mt) {
      constexpr int kRows = decltype(mt)::value;
      const float* xs[kRows];
      for (int m = 0; m < kRows; ++m) xs[m] = InputRow(x, r + m);
      FloatVec acc[kRows * NT];
      for (auto& a : acc) a = hn::Zero(d);
      TileDot<kRows, NT, kPrefetchBytes>(xs, ws, 0, k, acc);
      for (int m = 0; m < kRows; ++m) {
        StoreSums<NT>(acc + m * NT, y, r + m, n, n_step, NT);
      }
    });
  }
}

template <class W>
HWY_NOINLINE void DirectColumns(const MatmulInput& x, const W* w, int64_t k, int64_t begin,
                                int64_t end, const MatmulOutput& y) {
  const int64_t strip = (end - begin) / kTileColumns;
  for (int64_t n = begin; n < begin + strip; ++n) {
    DirectTile<kTileColumns>(x, w + n * k, strip * k, k, n, strip, y);
  }
  for (int64_t n = begin + strip * kTileColumns; n < end; ++n) {
    DirectTile<1>(x, w + n * k, k, k, n, 1, y);
  }
}

// One converted panel by up to kBlockRows rows. `sums`: the accumulators of tiles between panels.
HWY_NOINLINE void PanelTimesRows(const MatmulInput& x, int64_t first_row, int64_t rows,
                                 const float* panel, int64_t n, int64_t columns, int64_t k0,
                                 int64_t k1, int64_t k, const MatmulOutput& y, float* sums) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const int tile = static_cast<int>(std::min<int64_t>(kTileRows, rows - r));
    WithTileRows(tile, [&](auto mt) {
      constexpr int kRows = decltype(mt)::value;
      const float* xs[kRows];
      for (int m = 0; m < kRows; ++m) xs[m] = InputRow(x, first_row + r + m) + k0;
      for (int64_t c = 0; c < columns; c += kTileColumns) {
        const float* ws[kTileColumns];
        for (int i = 0; i < kTileColumns; ++i) ws[i] = panel + (c + i) * kPanelStride;
        float* saved = sums + (r * kPanelRows + c * kRows) * lanes;
        FloatVec acc[kRows * kTileColumns];
        for (int i = 0; i < kRows * kTileColumns; ++i) {
          acc[i] = k0 == 0 ? hn::Zero(d) : hn::LoadU(d, saved + i * lanes);
        }
        TileDot<kRows, kTileColumns, 0>(xs, ws, 0, k1 - k0, acc);
        if (k1 < k) {
          for (int i = 0; i < kRows * kTileColumns; ++i) hn::StoreU(acc[i], d, saved + i * lanes);
          continue;
        }
        for (int m = 0; m < kRows; ++m) {
          StoreSums<kTileColumns>(acc + m * kTileColumns, y, first_row + r + m, n + c, 1,
                                  std::min<int64_t>(kTileColumns, columns - c));
        }
      }
    });
  }
}

// `panel_rows`: how many rows of weights are converted at once, a multiple of kTileColumns.
template <class Rows>
HWY_NOINLINE void PanelColumns(const MatmulInput& x, const Rows& w, int64_t first, int64_t k,
                               int64_t begin, int64_t end, int64_t panel_rows,
                               const MatmulOutput& y, float* scratch) {
  float* panel = scratch;
  float* sums = scratch + kPanelRows * kPanelStride;
  for (int64_t r = 0; r < x.rows; r += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, x.rows - r);
    for (int64_t n = begin; n < end; n += panel_rows) {
      const int64_t columns = std::min(panel_rows, end - n);
      for (int64_t k0 = 0; k0 < k; k0 += kPanelColumns) {
        const int64_t k1 = std::min(k, k0 + kPanelColumns);
        for (int64_t c = 0; c < columns; ++c) {
          w.Convert(first + n + c, k0, k1 - k0, panel + c * kPanelStride);
        }
        // What fills up the last tile is multiplied, but not kept.
        for (int64_t c = columns; c % kTileColumns != 0; ++c) {
          std::fill_n(panel + c * kPanelStride, kPanelStride, 0.0f);
        }
        PanelTimesRows(x, r, rows, panel, n, columns, k0, k1, k, y, sums);
      }
    }
  }
}

template <class W>
void Columns(const MatmulInput& x, const Matrix& w, int64_t batch, int64_t begin, int64_t end,
             const MatmulOutput& y, float* scratch) {
  const PlainRows<W> rows(w);
  if (x.rows <= kDirectRows) {
    DirectColumns(x, rows.data + batch * w.n * w.k, w.k, begin, end, y);
  } else {
    PanelColumns(x, rows, batch * w.n, w.k, begin, end, kPanelRows, y, scratch);
  }
}

template <class Rows>
void QuantizedColumns(const MatmulInput& x, const Matrix& w, int64_t batch, int64_t begin,
                      int64_t end, const MatmulOutput& y, float* scratch) {
  const int64_t panel_rows = x.rows <= kDirectRows ? kTileColumns : kPanelRows;
  PanelColumns(x, Rows(w), batch * w.n, w.k, begin, end, panel_rows, y, scratch);
}

template <class Rows>
void Row(const Matrix& w, int64_t batch, int64_t n, float* out) {
  const Rows rows(w);
  const int64_t row = batch * w.n + n;
  constexpr int64_t kStep = 128;
  int64_t k = 0;
  for (; k + kStep <= w.k; k += kStep) rows.Convert(row, k, kStep, out + k);
  if (k < w.k) {
    float last[kStep];
    rows.Convert(row, k, w.k - k, last);
    std::copy_n(last, w.k - k, out + k);
  }
}

// A function for each type, since Highway's tables hold no templates.
#define SWITCHYARD_TYPE(NAME, COLUMNS, ROWS)                                              \
  void Columns##NAME(const MatmulInput& x, const Matrix& w, int64_t batch, int64_t begin, \
                     int64_t end, const MatmulOutput& y, float* scratch) {                \
    COLUMNS(x, w, batch, begin, end, y, scratch);                                         \
  }                                                                                       \
  void Row##NAME(const Matrix& w, int64_t batch, int64_t n, float* out) {                 \
    Row<ROWS>(w, batch, n, out);                                                          \
  }
SWITCHYARD_TYPE(F32, Columns<float>, PlainRows<float>)
SWITCHYARD_TYPE(Bf16, Columns<Bf16>, PlainRows<Bf16>)
SWITCHYARD_TYPE(F16, Columns<F16>, PlainRows<F16>)
SWITCHYARD_TYPE(F8, QuantizedColumns<F8Rows>, F8Rows)
SWITCHYARD_TYPE(Int4, QuantizedColumns<Int4Rows>, Int4Rows)
SWITCHYARD_TYPE(Mxfp4, QuantizedColumns<Mxfp4Rows>, Mxfp4Rows)
#undef SWITCHYARD_TYPE

int64_t ScratchFloats() {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(FloatTag()));
  return kPanelRows * kPanelStride + kBlockRows * kPanelRows * lanes;
}

}  // namespace HWY_NAMESPACE
}  // namespace switchyard::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::kernels {

HWY_EXPORT(ColumnsF32);
HWY_EXPORT(ColumnsBf16);
HWY_EXPORT(ColumnsF16);
HWY_EXPORT(ColumnsF8);
HWY_EXPORT(ColumnsInt4);
HWY_EXPORT(ColumnsMxfp4);
HWY_EXPORT(RowF32);
HWY_EXPORT(RowBf16);
HWY_EXPORT(RowF16);
HWY_EXPORT(RowF8);
HWY_EXPORT(RowInt4);
HWY_EXPORT(RowMxfp4);
HWY_EXPORT(ScratchFloats);

namespace {

using ColumnsFunction = void (*)(const MatmulInput&, const Matrix&, int64_t, int64_t, int64_t,
                                 const MatmulOutput&, float*);
using RowFunction = void (*)(const Matrix&, int64_t, int64_t, float*);

// The types that weights may have on the CPU: the one place to add a type.
struct TypeKernels {
  DType dtype;
  ColumnsFunction columns;
  RowFunction row;
};
const TypeKernels& KernelsOf(DType dtype) {
  // The first dispatch chooses the target; before it, the pointers below would be those of the
  // chooser.
  [[maybe_unused]] static const int64_t chosen = MatmulScratchFloats();
  static const TypeKernels table[] = {
      {DType::kF32, HWY_DYNAMIC_DISPATCH(ColumnsF32), HWY_DYNAMIC_DISPATCH(RowF32)},
      {DType::kBF16, HWY_DYNAMIC_DISPATCH(ColumnsBf16), HWY_DYNAMIC_DISPATCH(RowBf16)},
      {DType::kF16, HWY_DYNAMIC_DISPATCH(ColumnsF16), HWY_DYNAMIC_DISPATCH(RowF16)},
      {DType::kF8E4M3, HWY_DYNAMIC_DISPATCH(ColumnsF8), HWY_DYNAMIC_DISPATCH(RowF8)},
      {DType::kInt4, HWY_DYNAMIC_DISPATCH(ColumnsInt4), HWY_DYNAMIC_DISPATCH(RowInt4)},
      {DType::kMxfp4, HWY_DYNAMIC_DISPATCH(ColumnsMxfp4), HWY_DYNAMIC_DISPATCH(RowMxfp4)},
  };
  return table[static_cast<int>(dtype)];
}

}  // namespace

OpError CheckMatrix(const Matrix& w) {
  switch (w.dtype) {
    case DType::kF8E4M3:
      if (w.group != 0 && w.group != 128) return {"f8_e4m3 weights have groups of 0 or 128"};
      break;
    case DType::kInt4:
      if (w.group <= 0 || w.group % 32 != 0 || w.k % w.group != 0) {
        return {"int4 weights have groups of a multiple of 32 that divide a row"};
      }
      break;
    case DType::kMxfp4:
      if (w.group != 32 || w.k % 32 != 0) return {"mxfp4 weights have groups of 32"};
      break;
    default:
      return {};
  }
  if (w.scales == nullptr) return {"quantized weights have scales"};
  return {};
}

int64_t MatmulScratchFloats() { return HWY_DYNAMIC_DISPATCH(ScratchFloats)(); }

void MatmulColumns(const MatmulInput& x, const Matrix& w, int64_t batch, int64_t begin, int64_t end,
                   const MatmulOutput& y, float* scratch) {
  if (begin < end && x.rows > 0) {
    KernelsOf(w.dtype).columns(x, w, batch, begin, end, y, scratch);
  }
}

void MatrixRow(const Matrix& w, int64_t batch, int64_t n, float* out) {
  KernelsOf(w.dtype).row(w, batch, n, out);
}

int64_t MatmulGrain(int64_t rows, int64_t k) {
  constexpr int64_t kProducts = 32768;
  const int64_t columns = kProducts / std::max<int64_t>(1, rows * k) + 1;
  return (columns + 3) / 4 * 4;
}

}  // namespace switchyard::kernels
#endif  // HWY_ONCE
