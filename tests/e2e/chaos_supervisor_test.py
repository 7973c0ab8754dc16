"""Supervisors that are killed, told to stop, started twice, and reconfigured while they load."""

import os
import shutil
import signal
import tempfile
import time
import unittest

from chaos import DEVICE, Background, Swaps, answers, check_ledger, fault, models_of, pause
from harness import (MODELS, Supervisor, alive, children, control, end_of, first_token, grpc,
                     wait_for)

Code = grpc.StatusCode
THREE = ["austen", "joyce", "whitman"]


class ThreeModels(unittest.TestCase):
    """Three of the demonstration models: a supervisor of theirs starts in half the time."""

    @classmethod
    def setUpClass(cls):
        cls.models = models_of(THREE, cls.addClassCleanup)
        with Supervisor(models=cls.models, device=f"cpu={DEVICE}") as s:
            cls.expected = answers(s, voices=THREE)

    def supervisor(self, **kwargs):
        # Two of the three fit.
        return Supervisor(models=self.models, device="cpu=32MiB", **kwargs)

    # What a supervisor does when the fault comes; each returns something to join, for what end_of
    # says of it.

    def idle(self, s, chance):
        s.generate("austen")
        return Background(lambda: (Code.OK, True))

    def loading(self, s, chance):
        swaps, switch = Swaps(s, THREE), None
        while switch is None:
            s.switch("austen")
            s.switch("whitman")
            switch = swaps.amid("joyce", chance)
        return switch

    def streaming(self, s, chance):
        # The slowest of the three: some 170 ms where nothing else runs.
        stream = s.inference.Generate(s.request("joyce", tokens=900), timeout=60)
        first_token(stream)
        return Background(lambda: end_of(stream))

    def occupied(self, s, rounds, number):
        what = [self.idle, self.loading, self.streaming][number % 3]
        return what.__name__, what(s, rounds.random)


class KilledTest(ThreeModels):
    """The process is killed; its workers go, and the next one serves."""

    @fault("supervisor killed -9 idle, loading, streaming", 10, 500)
    def test_killed(self, rounds):
        state = tempfile.mkdtemp(prefix="switchyard-state-")
        self.addCleanup(shutil.rmtree, state, ignore_errors=True)
        slowest_orphan = slowest_back = 0
        for number in rounds:
            s = self.supervisor(state_dir=state)
            started = time.monotonic()
            s.start()
            try:
                self.assertEqual(s.generate("austen")[1], self.expected["austen"])
                slowest_back = max(slowest_back, time.monotonic() - started)
                what, call = self.occupied(s, rounds, number)
                pids = children(s.process.pid)
                self.assertGreaterEqual(len(pids), 3)
                s.process.kill()
                killed = time.monotonic()
                wait_for(lambda: not any(map(alive, pids)), 2, f"no orphans, {what}")
                slowest_orphan = max(slowest_orphan, time.monotonic() - killed)
                code, ours = call.join()
                if what == "streaming":
                    self.assertEqual((code, ours), (Code.UNAVAILABLE, False))
            finally:
                s.process.kill()
                s.process.wait()
                s.stop = lambda: 0
                s.__exit__(None, None, None)
        rounds.note(slowest_orphan_s=round(slowest_orphan, 2),
                    slowest_first_answer_s=round(slowest_back, 2))
        self.assertLess(slowest_back, 10)


class SecondTest(ThreeModels):

    @fault("second supervisor started", 5, 100)
    def test_refused(self, rounds):
        with self.supervisor() as first:
            expected = first.generate("austen", tokens=300)[1]
            for _ in rounds:
                answer = Background(lambda: first.generate("austen", tokens=300)[1])
                second = self.supervisor(state_dir=first.state_dir)
                with self.assertRaisesRegex(AssertionError, str(first.process.pid)):
                    second.start()
                self.assertEqual(second.process.returncode, 1)
                second.process.stdout.close()
                second.log.close()
                shutil.rmtree(second.directory, ignore_errors=True)
                self.assertEqual(answer.join(), expected)
                self.assertTrue(os.path.exists(os.path.join(first.state_dir, "switchyard.sock")))


class StopTest(ThreeModels):
    DRAIN = 0.02  # far less than a stream takes
    MAY_BE = {"idle": [Code.OK], "loading": [Code.OK, Code.UNAVAILABLE],
              "streaming": [Code.OK, Code.ABORTED]}

    def stop(self, rounds, number, twice, codes):
        s = self.supervisor(config=f"shutdown_timeout {{ nanos: {self.DRAIN * 1e9:.0f} }}")
        with s:
            what, call = self.occupied(s, rounds, number)
            pids = children(s.process.pid)
            start = time.monotonic()
            s.process.send_signal(signal.SIGTERM)
            if twice:
                pause(rounds.random.uniform(0, self.DRAIN))
                s.process.send_signal(signal.SIGTERM)
            self.assertEqual(s.process.wait(self.DRAIN + 10), 0, what)
            took = time.monotonic() - start
            self.assertLess(took, self.DRAIN + 2, what)
            self.assertFalse(any(map(alive, pids)), what)
            # A status that we gave it: a torn connection is UNAVAILABLE, too.
            code, ours = call.join(5)
            self.assertTrue(ours, f"{what}: {code}")
            self.assertIn(code, self.MAY_BE[what])
            codes[code] = codes.get(code, 0) + 1
        return took

    def stop_often(self, rounds, twice):
        codes = {}
        slowest = max(self.stop(rounds, n, twice, codes) for n in rounds)
        rounds.note(slowest_s=round(slowest, 2), ended={c.name: n for c, n in codes.items()})
        self.assertIn(Code.ABORTED, codes)  # streams were cut off, and told so

    @fault("SIGTERM idle, loading, streaming", 10, 200)
    def test_once(self, rounds):
        self.stop_often(rounds, False)

    @fault("SIGTERM twice", 10, 200)
    def test_twice(self, rounds):
        self.stop_often(rounds, True)


class ReloadTest(ThreeModels):
    """Good and bad configurations in turn, by signal, while models load."""

    def setUp(self):
        self.own = models_of(THREE, self.addCleanup)

    @fault("SIGHUP with good and bad configuration while loading", 10, 200)
    def test_while_loading(self, rounds):
        extra, bad = self.own / "melville.textproto", self.own / "zeta.textproto"
        changes = [  # in this order, again and again
            lambda: shutil.copy(MODELS / "melville.textproto", self.own),
            lambda: extra.write_text(extra.read_text().replace("1024", "512")),
            lambda: bad.write_text('name: "zeta" chekpoint: "zeta"'),
            lambda: (bad.unlink(), extra.unlink())]
        with Supervisor(models=self.own, device="cpu=32MiB") as s:
            for number in rounds:
                name = rounds.random.choice(THREE)
                load = Background(lambda: s.switch(name)[-1].phase)
                pause(rounds.random.uniform(0, 0.02))
                changes[(number - 1) % 4]()
                s.process.send_signal(signal.SIGHUP)
                wait_for(lambda: s.read_log().count("models.d read again")
                         + s.read_log().count("configuration is not changed") >= number, 20,
                         "the signal to be answered")
                self.assertEqual(load.join(), control.READY)
                self.assertEqual(s.generate(name)[1], self.expected[name])
                there = dict.fromkeys(THREE, 1024)
                if number % 4:
                    there["melville"] = [0, 1024, 512, 512][number % 4]
                # What was changed or removed goes once its worker has ended.
                wait_for(lambda: there == {m.name: m.plan.context_length
                                           for m in s.status().models}, 10, there)
            self.assertEqual(s.read_log().count("zeta.textproto"), (rounds.done + 1) // 4)
            check_ledger(self, s)


if __name__ == "__main__":
    unittest.main(verbosity=2)
