"""Faults, many times over: how often, with which seed, and what a run amounted to.

Environment:
  SWITCHYARD_CHAOS=nightly    the large counts; else the small ones of ./check
  SWITCHYARD_CHAOS_SEED       what to draw from; a failure prints it
  SWITCHYARD_CHAOS_SECONDS    a row is cut short after this long, and says at which count
  SWITCHYARD_CHAOS_LOG        a file that gets one line of JSON for each row
"""

import functools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from harness import MODELS, VOICES, control, end_of

NIGHTLY = os.environ.get("SWITCHYARD_CHAOS") == "nightly"
SEED = int(os.environ.get("SWITCHYARD_CHAOS_SEED") or random.SystemRandom().getrandbits(32))
SECONDS = float(os.environ.get("SWITCHYARD_CHAOS_SECONDS") or 1e9)
LOG = os.environ.get("SWITCHYARD_CHAOS_LOG")
DEVICE = 64 << 20  # about half of the six


def models_of(voices, add_cleanup, extra=""):
    """A models.d of its own with these demonstration models, and `extra` in each entry;
    `add_cleanup` takes what removes it."""
    folder = tempfile.TemporaryDirectory()
    add_cleanup(folder.cleanup)
    models = pathlib.Path(folder.name)
    (models / "demo").symlink_to(MODELS / "demo")
    for voice in voices:
        text = (MODELS / f"{voice}.textproto").read_text()
        (models / f"{voice}.textproto").write_text(f"{text}\n{extra}\n")
    return models


class Rounds:
    """Iterates as often as the row wants, with a source of chance of its own. `note` is for
    figures of the summary."""

    def __init__(self, row, times):
        self.row = row
        self.times = times
        self.random = random.Random(f"{SEED} {row}")
        self.done = 0
        self.notes = {}
        self.started = time.monotonic()
        self._lock = threading.Lock()

    def __iter__(self):
        while self.begin():
            yield self.done

    def begin(self, count=1):
        """Takes `count` rounds off the row; false when it is over. From any thread."""
        with self._lock:
            if self.done >= self.times or time.monotonic() - self.started > SECONDS:
                return False
            self.done += count
            return True

    def note(self, **figures):
        self.notes.update(figures)

    def write(self, passed):
        seconds = time.monotonic() - self.started
        print(f"{self.row}: {self.done} of {self.times} in {seconds:.1f} s, seed {SEED}"
              + "".join(f", {k} {v}" for k, v in self.notes.items()), flush=True)
        if not LOG:
            return
        with open(LOG, "a") as log:
            log.write(json.dumps({"row": self.row, "done": self.done, "times": self.times,
                                  "seconds": round(seconds, 1), "passed": passed, "seed": SEED,
                                  "notes": self.notes}) + "\n")


def fault(row, check, nightly):
    """A test method of one row: it is given its Rounds."""
    def decorate(test):
        @functools.wraps(test)
        def run(self):
            rounds = Rounds(row, nightly if NIGHTLY else check)
            passed = False
            try:
                test(self, rounds)
                passed = True
            except BaseException:
                sys.stderr.write(f"\n{row}, round {rounds.done}: "
                                 f"SWITCHYARD_CHAOS_SEED={SEED} draws the same again\n")
                raise
            finally:
                rounds.write(passed)
        return run
    return decorate


def pause(seconds):
    """A moment between two faults, drawn by the seed."""
    threading.Event().wait(seconds)


def run_delays(pid):
    """How long each thread of a process has stood in the kernel's run queue, in seconds."""
    delays = {}
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            waited = pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[1]
            delays[task] = int(waited) * 1e-9
    except (FileNotFoundError, ProcessLookupError):  # it, or a thread, ends meanwhile
        pass
    return delays


class MachineDelays:
    """How late this machine runs what is due: what a test measures may be so late, too, whatever it
    tests. Looked at all the time by a process that does nothing else, which the kernel favours for it,
    and told by the kernel of the processes that do the work. A context manager."""
    LOOK = """if True:
        import select, sys, time
        every, late, before = 0.002, [], time.monotonic()
        while True:
            asked = select.select([sys.stdin], [], [], every)[0]
            now = time.monotonic()
            if now - before > 2 * every:
                late.append((now, now - before - 2 * every))
            before = now
            start = sys.stdin.readline() if asked else None
            if start:
                print(sum(how for when, how in late if when >= float(start)), flush=True)
            elif start == "":
                break
        """

    def __enter__(self):
        self._lock = threading.Lock()
        self._process = subprocess.Popen([sys.executable, "-c", self.LOOK], text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._late_since(time.monotonic())  # it has begun
        return self

    def __exit__(self, *_):
        self._process.communicate()

    def begin(self, *pids):
        """From now on, for what these and this process do."""
        return time.monotonic(), {pid: run_delays(pid) for pid in (*pids, os.getpid())}

    def explain(self, began, took, bound):
        """Whether what began then and took so long would have been within the bound on a machine
        with nothing else to do: its threads stood in the run queue for half of that time."""
        start, before = began
        waited = sum(waited - delays.get(task, 0) for pid, delays in before.items()
                     for task, waited in run_delays(pid).items())
        return took - self._late_since(start) < bound or waited > took / 2

    def _late_since(self, start):
        with self._lock:
            self._process.stdin.write(f"{start}\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline())


def hit(pid, signal_number):
    """Sends a signal to a worker; false if it has just ended, for its bytes perhaps."""
    try:
        if pid:  # 0: there is none
            os.kill(pid, signal_number)
        return pid > 0
    except ProcessLookupError:
        return False


class Background:
    """A call in a thread; `join` returns what it returned or raises what it raised."""

    def __init__(self, call):
        self._result = self._error = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call):
        try:
            self._result = call()
        except BaseException as error:  # told to whoever joins
            self._error = error

    def ended(self):
        return not self._thread.is_alive()

    def join(self, timeout=60):
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise AssertionError(f"a call did not end within {timeout} s")
        if self._error is not None:
            raise self._error
        return self._result


class Swaps:
    """Switches of one supervisor that are disturbed at a random moment. They take some milliseconds,
    so the moment is drawn from how long they take here."""

    def __init__(self, s, models):
        self._s = s
        self._seconds = statistics.median(map(self._time_of, models))

    def _time_of(self, model):
        start = time.monotonic()
        self._s.switch(model)
        return time.monotonic() - start

    def amid(self, target, chance):
        """A switch that is under way, to be joined for how its stream ends (end_of); None if it was
        faster than the moment that was drawn."""
        stream = self._s.control.Switch(control.SwitchRequest(model=target), timeout=60)
        switch = Background(lambda: end_of(stream))
        pause(chance.uniform(0, self._seconds))
        return None if switch.ended() else switch


def together(calls, timeout=120):
    """Runs all of them at once; their results."""
    running = [Background(call) for call in calls]
    return [each.join(timeout) for each in running]


def answers(s, text="It was", tokens=8, voices=VOICES):
    """What each voice says undisturbed."""
    return {voice: s.generate(voice, text, tokens)[1] for voice in voices}


def check_ledger(test, s):
    for device in s.status().devices:
        test.assertLessEqual(device.leased_bytes, device.capacity_bytes)
