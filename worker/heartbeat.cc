#include "worker/heartbeat.h"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <utility>

namespace switchyard::worker {

constexpr int kLooks = 3;  // of one beat; while blocks change all the time, steps tell of them

v1::Heartbeat MakeHeartbeat(const EngineStats& stats, Nanos now, uint64_t rss_bytes) {
  v1::Heartbeat beat;
  beat.set_steps(stats.steps);
  beat.set_tokens(stats.tokens);
  beat.set_busy_ns(static_cast<uint64_t>(stats.busy));
  if (stats.step_started != 0 && now > stats.step_started) {
    beat.set_step_running_ns(static_cast<uint64_t>(now - stats.step_started));
    beat.set_step_predicted_ns(static_cast<uint64_t>(stats.step_predicted));
  }
  beat.set_rss_bytes(rss_bytes);
  beat.set_running(static_cast<uint32_t>(stats.running));
  beat.set_waiting(static_cast<uint32_t>(stats.waiting));
  beat.set_paused(static_cast<uint32_t>(stats.paused));
  beat.set_kv_blocks_used(stats.kv_blocks_used);
  beat.set_kv_blocks_total(stats.kv_blocks_total);
  return beat;
}

uint64_t ResidentBytes() {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/self/statm", "re"),
                                                       &std::fclose);
  unsigned long long size = 0, resident = 0;
  if (!file || std::fscanf(file.get(), "%llu %llu", &size, &resident) != 2) return 0;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

Heartbeats::Heartbeats(const Clock& clock, Outbox& outbox, std::function<EngineStats()> stats,
                       Nanos interval)
    : clock_(clock),
      outbox_(outbox),
      stats_(std::move(stats)),
      interval_(interval),
      thread_(1, "heartbeat") {
  Beat();
}

void Heartbeats::Beat() {
  const Nanos now = clock_.Now();
  EngineStats stats = stats_();
  // Blocks that are freed between looking and sending: the step that tells it may be sent first,
  // and nothing more for as long as nobody asks. So look again.
  for (int look = 0; look < kLooks; ++look) {
    v1::FromWorker message;
    *message.mutable_heartbeat() = MakeHeartbeat(stats, now, ResidentBytes());
    outbox_.Send(std::move(message));
    const uint64_t told = std::exchange(stats, stats_()).kv_blocks_used;
    if (stats.kv_blocks_used == told) break;
  }
  thread_.PostAt(now + interval_, [this] { Beat(); });
}

}  // namespace switchyard::worker
