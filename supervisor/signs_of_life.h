#pragma once

#include "common/clock.h"

// For how long a worker may say nothing, or get nowhere with a load, before it is taken to be hung.
// Pure.
//
// A worker beats from a thread of its own as soon as it has connected, before it opens its device
// or reads its checkpoint: these may take long, and prove nothing. So a silence means the same
// before Hello and after it. Only until the first sign it means less: a process that is being
// started is loaded from a disk that may be slow, beside others that may have the cores. Its
// sandbox comes before the first sign, too, and looks at the checkpoint's directory, where it
// resolves links, and makes that of the cache: on a disk that stands still these say nothing.
namespace switchyard::supervisor {

constexpr Nanos kLongestStart = 120 * kSecond;  // until Hello, whatever signs of life there are

// `silent_starts`: workers of this model in a row, before this one, that were given up without any
// sign. Each doubles what the next may take: a machine that is only slow gets there, as one that
// has no time to spare for five of them did not before either.
Nanos LongestSilence(bool spoke, int silent_starts);

// A load gets nowhere when no byte more has been filled into a master, or into a lease that grows,
// though the worker lives: its heartbeats come from another thread. `before`: loads of this model
// in a row, before this one, that were given up for that. Each doubles what the next may take, up
// to `longest`: a disk may stand still for long, too.
Nanos LongestStandstill(int before, Nanos longest);

// A worker looks at requests and calls in order, two at a time; the largest takes seconds. One that
// has not looked for so long at what it was sent before all else that it has not looked at is hung,
// though it beats and may look at others.
constexpr Nanos kLongestLook = 60 * kSecond;

// All are judged in two looks, the second this much later: if it was the supervisor that stood
// still, what came meanwhile is read in between. If only the thread that reads does, there is no
// second look before it has come round (Ports::echo).
constexpr Nanos kSecondLook = kSecond / 2;

}  // namespace switchyard::supervisor
