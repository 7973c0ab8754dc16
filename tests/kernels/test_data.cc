#include "tests/kernels/test_data.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {
namespace {

// SWITCHYARD_TEST_TARGET=AVX2 or SCALAR: pretend that the processor has nothing better.
const bool target_chosen = [] {
  const char* name = std::getenv("SWITCHYARD_TEST_TARGET");
  if (name == nullptr || *name == 0) return false;
  const int64_t better = HWY_AVX3_DL | HWY_AVX3;
  hwy::DisableTargets(std::strcmp(name, "AVX2") == 0 ? better : better | HWY_AVX2);
  return true;
}();

constexpr int32_t kBlockTokens = 16;
constexpr uint8_t kGuard = 0xA5;
constexpr int64_t kGuardBytes = 256;

uint16_t Bf16Bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>(bits >> 16);
}

// For normal numbers that f16 can hold, truncated.
uint16_t F16Bits(float x) {
  int exponent;
  const float fraction = std::frexp(std::fabs(x), &exponent);  // [0.5, 1)
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (x == 0 || exponent < -13) {  // subnormal: multiples of 2^-24
    return sign | static_cast<uint16_t>(std::ldexp(std::fabs(x), 24));
  }
  return static_cast<uint16_t>(sign | ((exponent + 14) << 10) |
                               (static_cast<int>(std::ldexp(fraction, 11)) & 1023));
}

void Append(std::vector<uint8_t>& bytes, DType dtype, float x) {
  uint8_t raw[4];
  if (dtype == DType::kF32) {
    std::memcpy(raw, &x, 4);
  } else if (dtype == DType::kF8E4M3) {
    raw[0] = ReferenceFp8(x);
  } else {
    const uint16_t bits = dtype == DType::kBF16 ? Bf16Bits(x) : F16Bits(x);
    std::memcpy(raw, &bits, 2);
  }
  bytes.insert(bytes.end(), raw, raw + DTypeBytes(dtype, 1));
}

}  // namespace

std::vector<float> RandomVector(Random& random, int64_t count, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

TestMatrix RandomMatrix(Random& random, DType dtype, int64_t n, int64_t k, int64_t batch,
                        float spread) {
  TestMatrix m;
  for (float x : RandomVector(random, n * k * batch, spread)) Append(m.bytes, dtype, x);
  m.matrix = {m.bytes.data(), dtype, n, k, batch};
  return m;
}

namespace {

void RandomScales(Random& random, const QuantizedForm& form, int64_t n, int64_t k, int64_t batch,
                  float spread, TestMatrix& m) {
  std::uniform_real_distribution<float> factor(0.7f, 1.4f);
  const int64_t columns = form.group == 0 ? 1 : (k + form.group - 1) / form.group;
  const int64_t rows = form.dtype == DType::kF8E4M3 && form.group != 0 ? (n + 127) / 128 : n;
  for (int64_t i = 0; i < batch * rows * columns; ++i) {
    if (form.dtype == DType::kF8E4M3) {
      Append(m.scales, DType::kF32, spread / 107 * factor(random));  // the patterns' own spread
    } else if (form.dtype == DType::kInt4) {
      Append(m.scales, DType::kF16, spread / (form.zeros ? 6.7f : 4.6f) * factor(random));
      if (form.zeros) m.zeros.push_back(random() % 17);  // GPTQ has zero points up to 16
    } else {
      const int exponent = static_cast<int>(std::lround(std::log2(spread / 3.0f)));
      m.scales.push_back(static_cast<uint8_t>(127 + exponent - static_cast<int>(random() % 2)));
    }
  }
}

}  // namespace

TestMatrix RandomMatrix(Random& random, const QuantizedForm& form, int64_t n, int64_t k,
                        int64_t batch, float spread) {
  TestMatrix m;
  m.bytes.resize(DTypeBytes(form.dtype, n * k * batch));
  for (uint8_t& byte : m.bytes) {
    do {
      byte = static_cast<uint8_t>(random());
    } while (form.dtype == DType::kF8E4M3 && (byte & 0x7f) == 0x7f);  // not a number
  }
  RandomScales(random, form, n, k, batch, spread, m);
  m.matrix = {m.bytes.data(), form.dtype, n, k, batch, m.scales.data()};
  m.matrix.zeros = m.zeros.empty() ? nullptr : m.zeros.data();
  m.matrix.group = form.group;
  return m;
}

TestMatrix Dequantized(const TestMatrix& m) {
  TestMatrix plain;
  for (int64_t b = 0; b < m.matrix.batch; ++b) {
    for (int64_t n = 0; n < m.matrix.n; ++n) {
      for (int64_t k = 0; k < m.matrix.k; ++k) {
        Append(plain.bytes, DType::kF32, static_cast<float>(ReferenceWeight(m.matrix, b, n, k)));
      }
    }
  }
  plain.matrix = {plain.bytes.data(), DType::kF32, m.matrix.n, m.matrix.k, m.matrix.batch};
  return plain;
}

TestScratch::TestScratch(const Ops& ops, const ScratchShape& shape)
    : buffer_(ops.ScratchBytes(shape) + kGuardBytes + 64, kGuard),
      data_(buffer_.data() + (64 - reinterpret_cast<uintptr_t>(buffer_.data()) % 64)),
      bytes_(ops.ScratchBytes(shape)) {
  // NaN everywhere: what an op reads before it writes shows.
  std::fill_n(data_, bytes_, uint8_t{0xFF});
}

TestScratch::~TestScratch() {
  for (int64_t i = 0; i < kGuardBytes; ++i) {
    if (data_[bytes_ + i] != kGuard) {
      ADD_FAILURE() << "an op wrote " << i << " bytes behind its scratch";
      return;
    }
  }
}

TestStep::TestStep(Random& random, std::vector<TestSequence> sequences, int32_t kv_heads,
                   int32_t head_dim, DType dtype, int32_t padding)
    : kv_heads_(kv_heads), head_dim_(head_dim), dtype_(dtype) {
  for (const TestSequence& s : sequences) context_ = std::max(context_, s.past + s.fresh);
  table_stride_ = (context_ + kBlockTokens - 1) / kBlockTokens;
  stride_ = context_ + 1;
  const int32_t slots = static_cast<int32_t>(sequences.size());
  table_.resize(slots * table_stride_);
  std::iota(table_.begin(), table_.end(), 0);
  std::shuffle(table_.begin(), table_.end(), random);
  tokens_.resize(slots * stride_);
  for (int32_t& id : tokens_) id = static_cast<int32_t>(random() % 50);
  for (int32_t s = 0; s < slots; ++s) {
    const int32_t slot = slots - 1 - s;  // slots are not sequences in order
    sequence_slot_.push_back(slot);
    sequence_row_.push_back(static_cast<int32_t>(slot_.size()));
    sequence_length_.push_back(sequences[s].past + sequences[s].fresh);
    for (int32_t i = 0; i < sequences[s].fresh; ++i) {
      slot_.push_back(slot);
      position_.push_back(sequences[s].past + i);
    }
  }
  sequence_row_.push_back(static_cast<int32_t>(slot_.size()));
  slot_.resize(slot_.size() + padding, -1);
  position_.resize(slot_.size(), 0);
  const int64_t elements = int64_t{kBlockTokens} * kv_heads * head_dim;
  half_bytes_ = DTypeBytes(dtype, elements);
  for (float x : RandomVector(random, table_.size() * 2 * elements)) Append(pool_, dtype, x);
}

void TestStep::SetRows(int32_t slot, int32_t from, int32_t count) {
  slot_.assign(count, slot);
  position_.resize(count);
  std::iota(position_.begin(), position_.end(), from);
  sequence_slot_ = {slot};
  sequence_row_ = {0, count};
  sequence_length_ = {from + count};
}

StepRows TestStep::rows() const {
  return {static_cast<int32_t>(slot_.size()),
          static_cast<int32_t>(sequence_slot_.size()),
          context_,
          slot_.data(),
          position_.data(),
          sequence_slot_.data(),
          sequence_row_.data(),
          sequence_length_.data()};
}

KvView TestStep::kv() {
  return {pool_.data(), table_.data(), table_stride_, kBlockTokens, 2 * half_bytes_, 0,
          half_bytes_,  dtype_};
}

ScratchShape TestStep::shape() const {
  ScratchShape shape;
  shape.rows = static_cast<int32_t>(slot_.size());
  shape.sequences = static_cast<int32_t>(sequence_slot_.size());
  shape.kv_heads = kv_heads_;
  shape.head_dim = head_dim_;
  shape.context = context_;
  return shape;
}

void ExpectClose(const std::vector<float>& expected, const std::vector<float>& actual,
                 double tolerance, const char* what) {
  ASSERT_EQ(expected.size(), actual.size()) << what;
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(double{expected[i]} - actual[i]);
    if (!(error <= worst)) {
      worst = error;
      at = i;
    }
    if (std::isnan(error)) break;
  }
  if (expected.empty()) return;
  EXPECT_LE(worst, tolerance) << what << ": element " << at << " of " << expected.size() << " is "
                              << actual[at] << ", not " << expected[at];
}

double DotTolerance(int64_t k, double a, double b) {
  const double epsilon = 0x1p-24;
  return 12 * epsilon * a * b * (std::sqrt(static_cast<double>(k)) * std::log2(k + 2.0) + 1);
}

}  // namespace switchyard::kernels
