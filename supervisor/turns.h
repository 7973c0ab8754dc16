#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/ports.h"

// Whose turn is next when several models want one device. Pure: values in, values out.
//
// Requests are collated by model, and models are served in turns. A turn of model m takes
//
//   swap(m)  its missing bytes, and the KV that has to make room or comes back, / the rate at which
//            bytes have been moving, and
//   turn(m)  its least turn, max(kLeastTurn, kTurnPerSwap * swap(m)): not cut short while m has
//            work, so under load at least kTurnPerSwap / (kTurnPerSwap + 1) of the time is served;
//            before that, victims may drain for as long as they are given.
//
// Models without work give way at once, though that means more swaps under a light load: whoever
// asks two models in turns, each when the other has answered, would wait for nothing else.
//
// Three rules say when a turn beyond its least ends for another model's requests:
//
//   Weighing.   By the time t, the n requests that wait for m have waited for W = sum(t - since)
//               request-seconds. A swap now makes the requests of the models that give way stand
//               still while m comes in, and again while they come back: it costs about
//               C = 2 * swap(m) * (their requests) request-seconds. m may come in once W >= C, when
//               waiting has cost as much as the swap will; so neither costs more than twice what
//               it need have.
//   Priority.   Work of higher priority does not weigh, and work of lower priority does not count.
//   The bound.  A request for m waits until m is being loaded no longer than
//                 bound(m) = max(max_wait(m), what the present turn may still take + release +
//                                sum over the other models that wait of release + swap + turn),
//               of the time in which others hold it up (wait_meter.h). There are no drains in it:
//               victims are paused earlier than they might be where that is too late for somebody
//               (Slack), and giving memory back takes the release.
//               Its loading must begin by due, when that has been waited. In the order of due +
//               swap + turn, the k-th must be chosen by
//                 L(k) = due(k) - release - sum(j < k: release + swap(j) + turn(j)),
//               or some bound is missed. From min L(k) on, that order is kept, and nothing but a
//               least turn holds up the first. Before that, a model may overtake the ones before
//               it only by as much time as all of them have to spare.
//               This always works out: whoever comes last has a bound that lets all others go
//               first, so the order of coming keeps all bounds; and if any order does, the one of
//               due + swap + turn does (Jackson 1955: it is that of deadlines for the ends).
//
// Operators' switches go first, in their order. But operators may ask again and again, and no bound
// has switches in it that are yet to come. So one that was asked for after a request of another
// model overtakes it as any model would, only by as much time as it has to spare: by no more than
// min L(k) over the requests that were there before the switch. Else it is held, with those behind
// it, and the requests go in the order of due, at once. A switch is not put off for ever either: no
// request that is due after those which were there before it goes first.
namespace switchyard::supervisor {

constexpr Nanos kLeastTurn = 100 * kMillisecond;
constexpr int kTurnPerSwap = 2;
constexpr Nanos kSwitchedTurn =
    2 * kSecond;                          // that an operator's switch gives, with work or without
constexpr Nanos kRelease = kSecond / 2;   // to pause sequences and give memory back
constexpr Nanos kMaxWait = 30 * kSecond;  // where a model does not say otherwise
constexpr Nanos kNever = INT64_MAX;
constexpr Nanos kLongestSwap = 60 * kSecond;  // no estimate is longer: stuck ones are ended

enum class DemandKind {
  kSwitch,      // an operator's Switch or Load
  kRequests,    // requests wait, collated by model
  kBackground,  // a pinned model that should be resident; disturbs nobody
};

// A wish to make one model resident.
struct Demand {
  std::string model;
  DemandKind kind = DemandKind::kRequests;
  int32_t priority = 0;  // the highest of its requests
  Nanos since = 0;       // of its oldest request; of a switch, its place in the order of switches
  // Its worker answers, its master is complete or will be soon, its lease is at rest.
  bool prepared = false;
  bool failing = false;  // its workers have been failing: no resident model gives way to it
  Nanos due = 0;         // the oldest request is refused then; 0: never
  Nanos swap = 0;
  Nanos turn = 0;
  Nanos waited = 0;     // the sum over its requests
  size_t requests = 0;  // that wait
  Nanos asked = 0;      // when the switch was, or the request that has waited for longest
  // RankDemands' own to set.
  Nanos urgent_at =
      0;              // from then on, only a least turn holds it up; 0: not while others are first
  bool held = false;  // may take no model's place now: one that is due earlier would be late
};

// Switches in their order, then requests by priority and age, then the background.
bool RanksBefore(const Demand& a, const Demand& b);

// How long `bytes` take.
Nanos SwapTime(uint64_t bytes, double bytes_per_second);
Nanos LeastTurn(Nanos swap);

// Puts demands into the order in which they may have their turn: switches, requests, switches that
// are held, background.
// `release`: how long victims take to leave that have no time to drain.
void RankDemands(std::vector<Demand>& demands, Nanos release, Nanos now);

// What the turn of `demand` takes of the device; nothing, if it disturbs nobody.
Nanos TurnTime(const Demand& demand, Nanos release);
// The bound on waiting of a model whose own configuration allows `max_wait`. `present`: what the
// turn under way may still take. `others`: the sum of TurnTime over the other demands.
Nanos WaitBound(Nanos max_wait, Nanos present, Nanos release, Nanos others);

// What has work on a device, as far as its turn goes.
struct Work {
  size_t requests = 0;    // running or waiting
  int32_t priority = 0;   // the highest of them
  Nanos turn_until = 0;   // its least turn
  bool switched = false;  // the turn began with an operator's switch, whose work is yet to come
};

// How long the victims of `chosen`, one of `demands`, may drain so that nobody who could be in time
// is late. `release`: what is left of leaving when that is over.
Nanos Slack(const Demand& chosen, const std::vector<Demand>& demands, Nanos release, Nanos now);

// From when on a model with `work` may be made to give way to `demand`; `now` or earlier: at once.
Nanos GivesWayAt(const Work& work, const Demand& demand, Nanos now);
// Whether what keeps it now is its least turn.
bool InLeastTurn(const Work& work, const Demand& demand, Nanos now);

}  // namespace switchyard::supervisor
