#include "worker/engine/kv_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace switchyard::worker {
namespace {

// Memory that remembers what was written to each block, and what is committed.
class FakeKvMemory final : public KvMemory {
 public:
  explicit FakeKvMemory(const KvLayout& layout) : layout_(layout) {}

  absl::Status Commit(int32_t group, int32_t granule) override {
    if (fail) return absl::ResourceExhaustedError("no room, says the test");
    EXPECT_TRUE(committed.insert({group, granule}).second);
    return absl::OkStatus();
  }
  absl::Status Release(int32_t group, int32_t granule) override {
    EXPECT_EQ(committed.erase({group, granule}), 1u);
    const int32_t per = layout_.groups[group].blocks_per_granule;
    for (int32_t b = granule * per; b < (granule + 1) * per; ++b) content.erase({group, b});
    return absl::OkStatus();
  }
  absl::Status Move(int32_t group, int32_t from, int32_t to) override {
    ++moves;
    EXPECT_TRUE(IsCommitted(group, from) && IsCommitted(group, to));
    content[{group, to}] = content[{group, from}];
    return absl::OkStatus();
  }
  bool IsCommitted(int32_t group, int32_t block) const {
    return committed.count({group, block / layout_.groups[group].blocks_per_granule}) > 0;
  }

  bool fail = false;
  int moves = 0;
  std::set<std::pair<int32_t, int32_t>> committed;
  std::map<std::pair<int32_t, int32_t>, uint64_t> content;

 private:
  const KvLayout& layout_;
};

constexpr int32_t kContext = 2048;
constexpr int32_t kSlots = 5;
constexpr int32_t kChunkRows = 64;

KvLayout LayoutOf(std::vector<int32_t> windows) {
  Architecture arch;
  arch.kv_heads = 2;
  arch.head_dim = 16;
  for (const int32_t window : windows) arch.layers.push_back({window, 0, false});
  return PlanKv(arch, kernels::DType::kF32, kContext, kSlots, kChunkRows, 4096);
}

// A cache with what ought to be in it.
class Model {
 public:
  explicit Model(std::vector<int32_t> windows)
      : layout(LayoutOf(std::move(windows))), memory(layout), cache(layout, kSlots, memory) {}

  // Writes the blocks of rows [first, end) with tags of their own.
  void Write(int32_t slot, int32_t first, int32_t end) {
    for (size_t g = 0; g < layout.groups.size(); ++g) {
      for (int32_t b = first / kBlockTokens; b <= (end - 1) / kBlockTokens; ++b) {
        const uint64_t tag = ++next_tag;
        const auto group = static_cast<int32_t>(g);
        memory.content[{group, cache.Table(group, slot)[b]}] = tag;
        expected[{group, slot, b}] = tag;
      }
    }
  }
  // Everything that a slot holds has the content that was written there last.
  void Verify() {
    cache.CheckInvariants();
    ASSERT_LE(cache.committed_bytes(), cache.limit());
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      const BlockSpans spans = cache.Spans(slot);
      for (size_t g = 0; g < spans.size(); ++g) {
        const auto group = static_cast<int32_t>(g);
        for (int32_t b = spans[g].begin; b < spans[g].end; ++b) {
          const int32_t block = cache.Table(group, slot)[b];
          ASSERT_TRUE(memory.IsCommitted(group, block));
          const auto tag = expected.find({group, slot, b});
          if (tag == expected.end()) continue;
          const auto there = memory.content.find({group, block});
          ASSERT_TRUE(there != memory.content.end() && there->second == tag->second)
              << "group " << g << " slot " << slot << " block " << b;
        }
      }
    }
  }

  KvLayout layout;
  FakeKvMemory memory;
  KvCache cache;
  uint64_t next_tag = 0;
  std::map<std::tuple<int32_t, int32_t, int32_t>, uint64_t> expected;
};

TEST(BlockPool, LowGranulesFirst) {
  BlockPool pool(4, 2);
  EXPECT_EQ(pool.Allocate(), -1);
  pool.Add(0);
  pool.Add(1);
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_EQ(pool.Allocate(), 1);
  EXPECT_EQ(pool.Allocate(), 2);
  pool.Free(0);
  EXPECT_EQ(pool.Allocate(), 0);
  EXPECT_EQ(pool.HighestFree(), -1);
  pool.Free(2);
  EXPECT_EQ(pool.HighestFree(), 1);
  pool.Remove(1);
  EXPECT_EQ(pool.LowestUncommitted(), 1);
}

TEST(KvCache, CommitsOnDemandWithinTheLimit) {
  Model m({0});
  m.cache.SetLimit(2 * m.layout.groups[0].granule_bytes);
  EXPECT_EQ(m.cache.committed_bytes(), 0u);
  ASSERT_TRUE(m.cache.Extend(0, 0, 1).ok());
  EXPECT_EQ(m.cache.committed_bytes(), m.layout.groups[0].granule_bytes);
  const int32_t fits = 2 * m.layout.groups[0].blocks_per_granule * kBlockTokens;
  ASSERT_TRUE(m.cache.Extend(0, 0, fits).ok());
  const BlockSpans before = m.cache.Spans(0);
  EXPECT_EQ(m.cache.Extend(0, 0, fits + 1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(m.cache.Spans(0)[0].end, before[0].end);
  m.cache.CheckInvariants();
}

TEST(KvCache, AFailedCommitChangesNothing) {
  Model m({0, 32});
  m.cache.SetLimit(m.layout.useful_bytes);
  ASSERT_TRUE(m.cache.Extend(0, 0, 20).ok());
  m.memory.fail = true;
  EXPECT_FALSE(m.cache.Extend(0, 20, kContext).ok());
  m.cache.CheckInvariants();
  EXPECT_EQ(m.cache.Spans(0)[0].end, 2);
  m.memory.fail = false;
  EXPECT_TRUE(m.cache.Extend(0, 20, 84).ok());
}

TEST(KvCache, BlocksSlideOutOfAWindow) {
  Model m({32, 32});
  m.cache.SetLimit(m.layout.useful_bytes);
  for (int32_t p = 0; p < kContext; ++p) {
    ASSERT_TRUE(m.cache.Extend(0, p, p + 1).ok());
    ASSERT_LE(m.cache.Held(0)[0], 3);
  }
  // Low granules are used again and again.
  EXPECT_EQ(m.cache.committed_bytes(), m.layout.groups[0].granule_bytes);
}

TEST(KvCache, ShrinkingMovesLiveBlocks) {
  Model m({0});
  m.cache.SetLimit(m.layout.useful_bytes);
  const int32_t granule_tokens = m.layout.groups[0].blocks_per_granule * kBlockTokens;
  for (int32_t slot = 0; slot < 3; ++slot) {
    ASSERT_TRUE(m.cache.Extend(slot, 0, granule_tokens).ok());
    m.Write(slot, 0, granule_tokens);
  }
  m.cache.Free(0);
  m.cache.Free(1);
  ASSERT_TRUE(m.cache.Extend(0, 0, 1).ok());  // one block at the bottom of the lowest granule
  m.Write(0, 0, 1);
  // Two granules are needed, three committed: one is free, and goes without a move.
  ASSERT_TRUE(m.cache.Shrink(2 * m.layout.groups[0].granule_bytes).ok());
  EXPECT_EQ(m.memory.moves, 0);
  m.cache.Free(0);
  // The one that is left moves down.
  ASSERT_TRUE(m.cache.Shrink(m.layout.groups[0].granule_bytes).ok());
  EXPECT_EQ(m.cache.committed_bytes(), m.layout.groups[0].granule_bytes);
  m.Verify();
}

TEST(KvCache, ChangesAreToldOnce) {
  Model m({0});
  m.cache.SetLimit(m.layout.useful_bytes);
  ASSERT_TRUE(m.cache.Extend(2, 0, 40).ok());
  int calls = 0;
  m.cache.TakeChanges([&](int32_t group, int32_t slot, BlockSpan span) {
    ++calls;
    EXPECT_EQ(slot, 2);
    EXPECT_EQ(span.count(), 3);
  });
  m.cache.TakeChanges([&](int32_t, int32_t, BlockSpan) { ++calls; });
  EXPECT_EQ(calls, 1);
}

// What Room says fits, Extend delivers; and the smallest pool always holds one whole sequence.
class KvCacheProperty : public testing::TestWithParam<int> {};

TEST_P(KvCacheProperty, RandomLives) {
  std::mt19937 random(GetParam());
  const std::vector<std::vector<int32_t>> shapes = {
      {0}, {0, 40, 0, 40}, {100}, {0, 16, 48}, {0, 0, 0, 0, 0, 700}};
  Model m(shapes[random() % shapes.size()]);
  m.cache.SetLimit(m.layout.smallest_bytes);
  std::vector<int32_t> computed(kSlots, 0);
  std::map<int32_t, std::pair<BlockSpans, int32_t>> paused;  // by slot
  for (int i = 0; i < 2000; ++i) {
    const int32_t slot = random() % kSlots;
    const uint32_t what = random() % 100;
    if (what < 70 && !paused.count(slot)) {
      const int32_t first = computed[slot];
      const int32_t border = std::min(kContext, (first / kChunkRows + 1) * kChunkRows);
      if (first >= kContext) continue;
      const int32_t end = random() % 2 ? border : first + 1;
      KvRoom room = m.cache.Room();
      room.Remove(m.cache.Held(slot));
      BlockCounts next;
      for (const KvGroup& g : m.layout.groups) next.push_back(BlocksForRows(g, first, end).count());
      room.Add(next);
      const absl::Status status = m.cache.Extend(slot, first, end);
      ASSERT_EQ(status.ok(), room.Fits()) << status;
      if (!status.ok()) continue;
      m.Write(slot, first, end);
      computed[slot] = end;
    } else if (what < 80) {
      m.cache.Free(slot);
      paused.erase(slot);
      computed[slot] = 0;
    } else if (what < 85 && !paused.count(slot)) {  // pause
      paused[slot] = {m.cache.Spans(slot), computed[slot]};
      m.cache.Free(slot);
    } else if (what < 92 && paused.count(slot)) {  // resume: the same indices, written again
      if (!m.cache.Reserve(slot, paused[slot].first).ok()) continue;
      for (size_t g = 0; g < m.layout.groups.size(); ++g) {
        const auto group = static_cast<int32_t>(g);
        for (int32_t b = paused[slot].first[g].begin; b < paused[slot].first[g].end; ++b) {
          m.memory.content[{group, m.cache.Table(group, slot)[b]}] = m.expected[{group, slot, b}];
        }
      }
      paused.erase(slot);
    } else if (what < 96) {  // grow
      m.cache.SetLimit(m.cache.limit() + random() % (1 << 20));
    } else {  // shrink as far as it goes
      const uint64_t target = random() % (m.cache.limit() + 1);
      ASSERT_TRUE(m.cache.Shrink(target).ok());
      ASSERT_TRUE(m.cache.committed_bytes() <= target ||
                  m.cache.committed_bytes() == m.cache.Room().Bytes());
      m.cache.SetLimit(std::max(m.cache.committed_bytes(), target));
    }
    m.Verify();
    if (HasFatalFailure()) return;
  }
  // One sequence alone runs through the whole context in the smallest pool, whatever came before.
  for (int32_t slot = 1; slot < kSlots; ++slot) m.cache.Free(slot);
  if (paused.count(0)) computed[0] = 0;
  m.cache.SetLimit(std::max(m.layout.smallest_bytes, m.cache.committed_bytes()));
  ASSERT_TRUE(m.cache.Shrink(m.layout.smallest_bytes).ok());
  m.cache.SetLimit(m.layout.smallest_bytes);
  for (int32_t p = computed[0]; p < kContext;) {
    const int32_t end = std::min(kContext, (p / kChunkRows + 1) * kChunkRows);
    ASSERT_TRUE(m.cache.Extend(0, p, end).ok()) << p;
    m.Write(0, p, end);
    p = end;
    m.Verify();
  }
  m.cache.Free(0);
  ASSERT_TRUE(m.cache.Shrink(0).ok());
  EXPECT_TRUE(m.memory.committed.empty());
}

INSTANTIATE_TEST_SUITE_P(Seeds, KvCacheProperty, testing::Range(0, 25));

}  // namespace
}  // namespace switchyard::worker
