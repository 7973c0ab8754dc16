#include "tests/gpu/device_data.h"

#include <cstdlib>

namespace switchyard::kernels {

bool ForInitcheck() {
  static const bool asked = std::getenv("SWITCHYARD_TEST_INITCHECK") != nullptr;
  return asked;
}

namespace {

// What follows up to a multiple of 16 bytes may be read (ops.h), and must not matter.
std::vector<uint8_t> WholePieces(std::vector<uint8_t> bytes) {
  bytes.resize((bytes.size() + 15) / 16 * 16, 0xFF);
  return bytes;
}

}  // namespace

DeviceMatrix::DeviceMatrix(const TestMatrix& m)
    : bytes(WholePieces(m.bytes)),
      scales(WholePieces(m.scales)),
      zeros(WholePieces(m.zeros)),
      matrix(m.matrix) {
  matrix.data = bytes.data();
  if (!m.scales.empty()) matrix.scales = scales.data();
  if (!m.zeros.empty()) matrix.zeros = zeros.data();
}

DeviceStep::DeviceStep(TestStep& step, int32_t slots)
    : rows(step.rows()),
      kv(step.kv()),
      tokens(step.tokens()),
      slot(rows.slot, rows.rows),
      position(rows.position, rows.rows),
      sequence_slot(rows.sequence_slot, rows.sequences),
      sequence_row(rows.sequence_row, rows.sequences + 1),
      sequence_length(rows.sequence_length, rows.sequences),
      table(kv.table, size_t(slots) * kv.table_stride),
      ids(tokens.ids, size_t(slots) * tokens.stride),
      pool(step.pool()) {
  rows.slot = slot.data();
  rows.position = position.data();
  rows.sequence_slot = sequence_slot.data();
  rows.sequence_row = sequence_row.data();
  rows.sequence_length = sequence_length.data();
  kv.base = pool.data();
  kv.table = table.data();
  tokens.ids = ids.data();
}

void ExpectNear(const std::vector<float>& expected, const std::vector<float>& actual,
                double absolute, double relative, const char* what) {
  ASSERT_EQ(expected.size(), actual.size()) << what;
  double worst = -1;
  size_t at = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(double{expected[i]} - actual[i]) -
                         relative * std::fabs(double{expected[i]}) - absolute;
    if (!(error <= worst)) {
      worst = error;
      at = i;
    }
    if (std::isnan(error)) break;
  }
  if (expected.empty()) return;
  EXPECT_LE(worst, 0) << what << ": element " << at << " of " << expected.size() << " is "
                      << actual[at] << ", not " << expected[at];
}

}  // namespace switchyard::kernels
