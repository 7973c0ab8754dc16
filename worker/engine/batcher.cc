#include "worker/engine/batcher.h"

#include <algorithm>
#include <numeric>

namespace switchyard::worker {
namespace {

using From = BatchRows::From;

// Tokens beyond what they have that newcomers, and those beside them, must find room for, so that
// nobody is paused at once.
constexpr int32_t kMarginTokens = 2 * kBlockTokens;

BlockCounts CountsForRows(const KvLayout& layout, int32_t first, int32_t end) {
  BlockCounts counts;
  for (const KvGroup& group : layout.groups) {
    counts.push_back(BlocksForRows(group, first, end).count());
  }
  return counts;
}

// Most blocks that a sequence of `length` tokens holds at once while it is computed.
BlockCounts CountsForLength(const KvLayout& layout, int32_t length) {
  BlockCounts counts;
  for (const KvGroup& group : layout.groups) {
    counts.push_back(std::min((length + kBlockTokens - 1) / kBlockTokens, group.sequence_blocks));
  }
  return counts;
}

BlockCounts CountsWithMargin(const KvLayout& layout, const BatchItem& item) {
  return CountsForLength(layout, std::min(item.length + kMarginTokens, item.most_length));
}

BlockCounts Larger(BlockCounts a, const BlockCounts& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] = std::max(a[i], b[i]);
  return a;
}

std::vector<int32_t> InRankOrder(std::span<const BatchItem> items) {
  std::vector<int32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return RanksBefore(items[a], items[b]); });
  return order;
}

// True if `a` is paused before `b`: suspended first, then the lowest rank.
bool PausedBefore(const BatchItem& a, const BatchItem& b) {
  if (a.suspended != b.suspended) return a.suspended;
  return RanksBefore(b, a);
}

class Planner {
 public:
  explicit Planner(const BatchInput& in)
      : in_(in),
        room_(in.room),
        rows_left_(in.step_rows),
        out_(in.running.size(), false),
        scheduled_(in.running.size(), false) {}

  BatchPlan Plan() {
    const std::vector<int32_t> order = InRankOrder(in_.running);
    for (const int32_t i : order) Schedule(i, /*decoding=*/true);
    for (const int32_t i : order) Schedule(i, /*decoding=*/false);
    // While somebody waits for blocks, nobody comes in to take more.
    if (in_.resume && !starved_ && plan_.pause.empty()) {
      for (const int32_t i : order) {
        const BatchItem& item = in_.running[i];
        if (item.suspended && !item.complete) suspended_.push_back(i);  // else it ends by itself
      }
      if (BringBackPaused() && in_.admit) Admit();
    }
    return std::move(plan_);
  }

 private:
  bool Runnable(const BatchItem& item) const { return !item.suspended && !item.complete; }

  void Schedule(int32_t i, bool decoding) {
    const BatchItem& item = in_.running[i];
    if (out_[i] || !Runnable(item) || (item.length - item.computed == 1) != decoding) return;
    const int32_t end = NextRowsEnd(item.computed, item.length, in_.prefill_chunk);
    if (end - item.computed > rows_left_) return;
    const BlockCounts next = CountsForRows(*in_.layout, item.computed, end);
    room_.Remove(item.held);
    room_.Add(next);
    while (!room_.Fits()) {
      if (!PauseOneBelow(i)) {
        room_.Remove(next);
        room_.Add(item.held);
        starved_ = true;
        return;
      }
    }
    scheduled_[i] = true;
    Emit(From::kRunning, i, item.computed, end);
  }

  void Emit(From from, int32_t index, int32_t first, int32_t end) {
    plan_.rows.push_back({from, index, first, end});
    rows_left_ -= end - first;
  }

  // Pauses the first in line that has no rows in this step and that `i` may displace: a suspended
  // one, or one that ranks lower. One that is complete ends by itself.
  bool PauseOneBelow(int32_t i) {
    int32_t victim = -1;
    for (int32_t j = 0; j < static_cast<int32_t>(in_.running.size()); ++j) {
      const BatchItem& item = in_.running[j];
      if (j == i || out_[j] || scheduled_[j] || item.complete) continue;
      if (!item.suspended && !RanksBefore(in_.running[i], item)) continue;
      if (victim < 0 || PausedBefore(item, in_.running[victim])) victim = j;
    }
    if (victim < 0) return false;
    Pause(victim);
    return true;
  }

  void Pause(int32_t victim) {
    out_[victim] = true;
    room_.Remove(in_.running[victim].held);
    plan_.pause.push_back(victim);
  }

  // True if somebody runs who will make room without being asked.
  bool AnyoneGoesOn() const {
    for (size_t i = 0; i < in_.running.size(); ++i) {
      if (!out_[i] && !in_.running[i].suspended) return true;
    }
    return !plan_.resume.empty() || !plan_.admit.empty();
  }

  // What is left beside what running sequences are known to need.
  KvRoom RoomForNewcomers() const {
    KvRoom room = room_;
    room.limit = std::min(room.limit, in_.admission_limit);
    for (int32_t i = 0; i < static_cast<int32_t>(in_.running.size()); ++i) {
      if (out_[i]) continue;
      room.Remove(Now(i));
      room.Add(Reserved(i));
    }
    return room;
  }

  // Blocks that a running one holds once this step is under way, and those with what it is known to
  // need.
  BlockCounts Now(int32_t i) const {
    const BatchItem& item = in_.running[i];
    if (!scheduled_[i]) return item.held;
    const int32_t end = NextRowsEnd(item.computed, item.length, in_.prefill_chunk);
    return CountsForRows(*in_.layout, item.computed, end);
  }
  BlockCounts Reserved(int32_t i) const {
    const BatchItem& item = in_.running[i];
    return item.complete ? Now(i) : Larger(Now(i), CountsWithMargin(*in_.layout, item));
  }

  static bool Fits(KvRoom room, const BlockCounts& counts) {
    room.Add(counts);
    return room.Fits();
  }

  // True if every paused sequence that may run is back.
  bool BringBackPaused() {
    KvRoom room = RoomForNewcomers();
    for (int32_t i = 0; i < static_cast<int32_t>(in_.paused.size()); ++i) {
      const BatchItem& item = in_.paused[i];
      if (item.suspended) continue;
      const int32_t end = NextRowsEnd(item.computed, item.length, in_.prefill_chunk);
      const BlockCounts most = Larger(item.held, CountsForLength(*in_.layout, item.length));
      if (end - item.computed > rows_left_ || !MayEnter(room, most, item)) return false;
      room.Add(most);
      plan_.resume.push_back(i);
      if (!item.complete) Emit(From::kPaused, i, item.computed, end);
    }
    newcomers_ = room;
    return true;
  }

  void Admit() {
    for (int32_t i = 0; i < static_cast<int32_t>(in_.waiting.size()); ++i) {
      const BatchItem& item = in_.waiting[i];
      if (item.suspended) continue;
      const int32_t end = NextRowsEnd(item.computed, item.length, in_.prefill_chunk);
      const BlockCounts most = CountsForLength(*in_.layout, item.length);
      if (end - item.computed > rows_left_ || !MayEnter(newcomers_, most, item)) return;
      newcomers_.Add(most);
      plan_.admit.push_back(i);
      Emit(From::kWaiting, i, item.computed, end);
    }
  }

  // `most`: blocks for the tokens that it has. For a slot or blocks that it lacks, suspended
  // sequences leave, if that is enough: who does not read must not keep others waiting. A reader
  // that is only slow leaves no more often than once in half a MiB of what it reads (the router
  // suspends at 1 MiB and goes on at half of that), and then only if somebody has a use for its
  // place.
  bool MayEnter(KvRoom& room, const BlockCounts& most, const BatchItem& item) {
    // Alone it needs no margin: nobody else will make room.
    const BlockCounts needed =
        AnyoneGoesOn() ? Larger(most, CountsWithMargin(*in_.layout, item)) : most;
    int32_t slots = in_.free_slots + static_cast<int32_t>(plan_.pause.size()) -
                    static_cast<int32_t>(plan_.resume.size() + plan_.admit.size());
    KvRoom left = room;
    size_t leaving = 0;  // from the end of suspended_
    for (; slots <= 0 || !Fits(left, needed); ++leaving, ++slots) {
      if (leaving == suspended_.size()) return false;
      left.Remove(Reserved(suspended_[suspended_.size() - leaving - 1]));
    }
    for (; leaving > 0; --leaving) {
      Pause(suspended_.back());
      suspended_.pop_back();
    }
    room = left;
    return true;
  }

  const BatchInput& in_;
  KvRoom room_;
  KvRoom newcomers_;
  int32_t rows_left_;
  bool starved_ = false;
  std::vector<bool> out_, scheduled_;  // of running: paused by this plan; has rows in it
  std::vector<int32_t> suspended_;     // of running, those that may leave; the last one first
  BatchPlan plan_;
};

}  // namespace

bool RanksBefore(const BatchItem& a, const BatchItem& b) {
  if (a.priority != b.priority) return a.priority > b.priority;
  return a.arrival < b.arrival;
}

int32_t NextRowsEnd(int32_t computed, int32_t length, int32_t prefill_chunk) {
  const int64_t border = (int64_t{computed} / prefill_chunk + 1) * prefill_chunk;
  return static_cast<int32_t>(std::min<int64_t>(border, length));
}

BatchPlan PlanBatch(const BatchInput& input) { return Planner(input).Plan(); }

std::vector<int32_t> ChooseToPause(std::span<const BatchItem> running, KvRoom room,
                                   uint64_t limit) {
  room.limit = limit;
  std::vector<int32_t> order(running.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return PausedBefore(running[a], running[b]); });
  std::vector<int32_t> chosen;
  for (const int32_t i : order) {
    if (room.Fits()) break;
    room.Remove(running[i].held);
    chosen.push_back(i);
  }
  return chosen;
}

}  // namespace switchyard::worker
