"""Workers that are killed, stopped and interrupted at random moments."""

import signal
import threading
import time
import unittest

from chaos import (DEVICE, NIGHTLY, Background, Swaps, answers, check_ledger, fault, hit,
                   models_of, pause, together)
from frozen import Frozen, thread_of
from harness import VOICES, Supervisor, alive, code_of, control, grpc, wait_for

Code = grpc.StatusCode
# A supervisor sees so many kills, so that the back-off of its workers stays short.
KILLS = 6


class KilledTest(unittest.TestCase):

    @fault("worker killed -9 at a random moment of a swap", 30, 1000)
    def test_killed_amid_swaps(self, rounds):
        # Most of the time is back-off, so several supervisors at once.
        together([lambda: self.kills(rounds)] * 3, timeout=7200)

    def kills(self, rounds):
        while rounds.begin(0):
            with Supervisor(device=f"cpu={DEVICE}") as s:
                expected = answers(s)
                swaps = Swaps(s, VOICES)
                for _ in range(KILLS):
                    if rounds.begin():
                        self.kill_one(s, swaps, rounds.random, expected)
                check_ledger(self, s)

    def kill_one(self, s, swaps, chance, expected):
        switch = None
        while switch is None:
            # What comes in, or one of those that may have to go for it.
            models = s.status().models
            target = chance.choice([m.name for m in models if not m.resident_bytes])
            victim = chance.choice([target, *(m.name for m in models if m.resident_bytes)])
            pid = s.model(victim).worker_pid
            switch = swaps.amid(target, chance)
        hit(pid, signal.SIGKILL)
        # The next request, whether or not an operator's wish has cut the back-off short.
        self.assertEqual(s.generate(target, timeout=60)[1], expected[target], (target, victim))
        switch.join()
        self.assertEqual(s.generate(victim, timeout=60)[1], expected[victim], (target, victim))
        wait_for(lambda: not any(m.running or m.queued or m.paused for m in s.status().models), 5,
                 "nothing to be stuck")


def five_and_one(s, chance):
    """Five voices by chance, and the sixth, which is never evicted for them, so it goes on."""
    five = chance.sample(VOICES, 5)
    sixth = next(v for v in VOICES if v not in five)
    s.control.Pin(control.PinRequest(model=sixth, pinned=True))
    s.switch(sixth)
    return five, sixth


class StoppedTest(unittest.TestCase):
    # No heartbeat for 5 s; if it was told to end meanwhile, for room, 5 s from then.
    NOTICED = 10.5

    @fault("worker stopped (SIGSTOP)", 5, 200)
    def test_stopped(self, rounds):
        worst = 0
        while rounds.begin(5):
            with Supervisor(device=f"cpu={DEVICE}") as s:
                expected = answers(s)
                worst = max(worst, self.stop_five(s, rounds.random, expected))
                check_ledger(self, s)
        rounds.note(slowest_noticed_s=round(worst, 2))

    def stop_five(self, s, chance, expected):
        stopped, running = five_and_one(s, chance)
        pids = {v: s.model(v).worker_pid for v in stopped}
        # One of them in the middle of a load, and one while it streams.
        asleep = [m.name for m in s.status().models if not m.resident_bytes and m.name in stopped]
        loading = Background(lambda: code_of(lambda: s.switch(asleep[0], 60)))
        streaming = Background(lambda: code_of(lambda: s.generate(stopped[0], tokens=900,
                                                                  timeout=60)))
        pause(chance.uniform(0, 0.02))
        pids = {v: pid for v, pid in pids.items() if hit(pid, signal.SIGSTOP)}
        start = time.monotonic()
        self.assertEqual(s.generate(running, timeout=3)[1], expected[running])
        wait_for(lambda: not any(map(alive, pids.values())), 15, "the stopped ones to be noticed")
        noticed = time.monotonic() - start
        self.assertLess(noticed, self.NOTICED)
        for voice in stopped:
            self.assertEqual(s.generate(voice, timeout=60)[1], expected[voice], voice)
        loading.join()
        streaming.join()
        return noticed


class StoppedAtStartTest(unittest.TestCase):
    # 10 s until the first sign of life, 5 s after any other; if it was told to end meanwhile, 5 s
    # from then.
    NOTICED = 15.5

    @fault("worker stopped (SIGSTOP) as it starts", 5, 200)
    def test_stopped(self, rounds):
        worst, unheard = 0, 0
        while rounds.begin(5):
            with Supervisor(device=f"cpu={DEVICE}") as s:
                expected = answers(s)
                worst = max(worst, self.stop_five(s, rounds.random, expected))
                unheard += s.read_log().count("no sign of life since")
                check_ledger(self, s)
        rounds.note(slowest_noticed_s=round(worst, 2), before_any_sign=unheard)

    def stop_five(self, s, chance, expected):
        victims, running = five_and_one(s, chance)
        killed = {v: s.model(v).worker_pid for v in victims}
        for pid in killed.values():
            hit(pid, signal.SIGKILL)
        stopped = together([lambda v=v, moment=chance.uniform(0, 0.03): self.stop_next(
            s, v, killed[v], moment) for v in victims])
        start = time.monotonic()
        self.assertEqual(s.generate(running, timeout=3)[1], expected[running])
        wait_for(lambda: not any(map(alive, stopped)), 25, "the stopped ones to be noticed")
        noticed = time.monotonic() - start
        self.assertLess(noticed, self.NOTICED)
        for voice in victims:
            self.assertEqual(s.generate(voice, timeout=60)[1], expected[voice], voice)
        return noticed

    def stop_next(self, s, voice, before, moment):
        """Stops the worker that comes after this one, a moment after it was started."""
        pid = wait_for(lambda: s.model(voice).worker_pid not in (0, before)
                       and s.model(voice).worker_pid, 20, "the next worker")
        pause(moment)
        hit(pid, signal.SIGSTOP)
        return pid


class HungInLoadTest(unittest.TestCase):
    """Workers that beat, and get nowhere: the thread that loads stands still."""
    NOTICED = 21.5  # no byte more for 20 s, though it is heard
    AT_ONCE = 10 if NIGHTLY else 5  # supervisors: on one device models load one after the other

    @fault("worker hung in load", 5, 200)
    def test_hung(self, rounds):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            expected = answers(s)
        worst = 0
        try:
            while rounds.begin(self.AT_ONCE):
                cases = [(rounds.random.sample(VOICES, 2), thread)
                         for thread in (["master", "engine"] * self.AT_ONCE)[:self.AT_ONCE]]
                worst = max([worst, *together([lambda c=c: self.hang(*c, expected)
                                               for c in cases])])
        except PermissionError:
            self.skipTest("freezing a worker's thread needs CAP_SYS_PTRACE")
        rounds.note(slowest_noticed_s=round(worst, 2))

    def hang(self, voices, thread, expected):
        victim, other = voices
        models = models_of(voices, self.addCleanup, "idle_timeout { nanos: 50000000 }")
        with Supervisor(models=models, config="prefetch_at_start: false") as s:
            s.control.Pin(control.PinRequest(model=other, pinned=True))
            s.switch(other)
            if thread == "engine":  # it has its device, and has had its weights
                s.switch(victim)
                wait_for(lambda: not s.model(victim).resident_bytes, what="it to sleep")
            pid = wait_for(lambda: s.model(victim).worker_pid, what="a worker")
            Frozen(wait_for(lambda: thread_of(pid, thread), what=f"the thread {thread}"))
            start = time.monotonic()
            asked = Background(lambda: s.generate(victim, timeout=60)[1])
            self.assertEqual(s.generate(other, timeout=10)[1], expected[other])
            wait_for(lambda: not alive(pid), 30, f"{victim} to be noticed")
            noticed = time.monotonic() - start
            self.assertLess(noticed, self.NOTICED, thread)
            # It has lost nothing: the next worker serves it.
            self.assertEqual(asked.join(), expected[victim], thread)
            check_ledger(self, s)
        return noticed


class PreemptTest(unittest.TestCase):
    TEXTS = ["In the morning", "It was the", "Of all that", "There is a"]

    def asked(self, s, voice, text, seed, priority=0, runs=None, after=None):
        """A long answer, with chance in it: (ids, whether it was paused). Sets `runs` when it has
        begun or failed; is asked when `after` is set."""
        ids, paused = [], False
        request = s.request(voice, text, 320, temperature=0.8, sampling={"seed": seed},
                            priority=priority)
        try:
            if after:
                after.wait(240)
            for event in s.inference.Generate(request, timeout=240):
                ids += event.ids
                paused |= event.waiting.paused
                if runs and ids:
                    runs.set()
        finally:
            if runs:
                runs.set()
        return ids, paused

    @fault("preempt: pause, swap, resume under load", 50, 1000)
    def test_the_same_tokens(self, rounds):
        """A round is an answer that was paused: on a fast machine many end before their model has
        to go."""
        cases = [(v, text, seed) for v in VOICES for seed, text in enumerate(self.TEXTS)]
        with Supervisor(device="cpu=1GiB") as s:
            expected = dict(zip(cases, together([lambda c=c: self.asked(s, *c)[0]
                                                 for c in cases])))
        answered = 0
        with Supervisor(device="cpu=32MiB",
                        config="drain_timeout { nanos: 1000000 }") as s:
            while rounds.begin(0):
                # Two models that cannot both be there; the one that matters more is asked while
                # the other answers, and waits for its least turn alone.
                voices = rounds.random.sample(VOICES, 2)
                chosen = [c for v in voices for c in cases if c[0] == v]
                runs = threading.Event()
                order = [dict(runs=runs), dict(priority=1, after=runs)]
                results = together([lambda c=c: self.asked(s, *c, **order[voices.index(c[0])])
                                    for c in chosen], 240)
                answered += len(chosen)
                for case, (ids, was_paused) in zip(chosen, results):
                    self.assertEqual(ids, expected[case], case)
                    rounds.begin(was_paused)
                self.assertLess(answered, 100 * rounds.times, "hardly an answer is paused")
            check_ledger(self, s)
        rounds.note(answered=answered)


if __name__ == "__main__":
    unittest.main(verbosity=2)
