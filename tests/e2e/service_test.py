"""What a service manager and a load balancer are told: sd_notify, self-probes, health."""

import os
import signal
import subprocess
import time
import unittest

from frozen import Thawable, thread_of
from harness import FakeModels, fake, inference, model, wait_for
from service_manager import Manager



class NotifyTest(unittest.TestCase):

    def setUp(self):
        self.manager = Manager(WATCHDOG_USEC="400000")
        self.addCleanup(self.manager.close)

    def test_what_a_service_manager_is_told(self):
        with fake(env=self.manager.environment) as s:
            self.assertEqual(self.manager.hear(5), "EXTEND_TIMEOUT_USEC=60000000")
            self.manager.wait_for(
                "STATUS=3 models: 3 cold; not ready, waits for alpha, beta, gamma")
            self.manager.wait_for("READY=1")
            self.assertRegex(self.manager.hear(5), r"\ASTATUS=3 models: (?!.*not ready)")
            s.switch("alpha")
            self.manager.wait_for("STATUS=3 models: 1 resident (alpha), 2 warm")

            start = time.monotonic()
            for _ in range(5):
                self.manager.wait_for("WATCHDOG=1")
            self.assertLess(time.monotonic() - start, 3)  # 0.2 s each, on a busy machine

            before = time.monotonic_ns() // 1000
            s.process.send_signal(signal.SIGHUP)
            reloading = self.manager.wait_for("RELOADING=1")
            name, _, at = reloading.splitlines()[1].partition("=")
            self.assertEqual(name, "MONOTONIC_USEC")
            self.assertTrue(before <= int(at) <= time.monotonic_ns() // 1000)
            self.manager.wait_for("READY=1")

            s.process.send_signal(signal.SIGTERM)
            stopping = self.manager.wait_for("STOPPING=1")
            self.assertIn("STATUS=draining", stopping)
            self.assertIn("EXTEND_TIMEOUT_USEC=12000000", stopping)  # the drain's 10 s, and 2 s
            self.assertEqual(s.process.wait(10), 0)

    def test_it_asks_for_time_before_models_are_planned(self):
        s = fake(FakeModels(["alpha"]), fault="*:plan:hang", env=self.manager.environment)
        starting = subprocess.Popen(s.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                    env=s.environment)
        try:
            # The 30 s that a planner has, and 30 s for what comes behind it.
            self.assertEqual(self.manager.hear(20), "EXTEND_TIMEOUT_USEC=60000000")
            self.assertEqual(self.manager.heard, ["EXTEND_TIMEOUT_USEC=60000000"])
        finally:
            starting.terminate()
            starting.wait(10)

    def test_a_reload_that_failed_is_in_the_status_line_until_one_is_good(self):
        models = FakeModels(["alpha"])
        with fake(models, env=self.manager.environment) as s:
            self.manager.wait_for("READY=1")
            self.manager.wait_for("STATUS=1 model: 1 warm")
            models.write("alpha", "nonsense: 1")
            s.process.send_signal(signal.SIGHUP)
            self.assertIn("alpha.textproto:1:",
                          self.manager.wait_for("STATUS=1 model: 1 warm; the last reload failed: "))
            models.write("alpha")
            s.process.send_signal(signal.SIGHUP)
            self.assertEqual(self.manager.wait_for("STATUS="), "STATUS=1 model: 1 warm")

    def test_ready_means_that_what_is_pinned_has_generated(self):
        models = FakeModels()
        models.write("alpha", "pinned: true")
        # Its first worker runs no step, and is found out in 5 s.
        with fake(models, fault="alpha:token:hang", once=True, env=self.manager.environment) as s:
            self.manager.wait_for("READY=1", timeout=30)
            alpha = s.model("alpha")
            self.assertEqual((alpha.state, alpha.restarts, alpha.requests), (model.RESIDENT, 1, 0))

    def test_a_supervisor_that_stands_still_does_not_pet_the_watchdog(self):
        with fake(env=self.manager.environment) as s:
            self.manager.wait_for("WATCHDOG=1")
            s.process.send_signal(signal.SIGSTOP)
            self.addCleanup(s.process.send_signal, signal.SIGCONT)
            with self.assertRaises(AssertionError):
                while True:  # what was under way, then nothing
                    self.manager.wait_for("WATCHDOG=1", timeout=0.6)
            s.process.send_signal(signal.SIGCONT)
            self.manager.wait_for("WATCHDOG=1")

    def test_calls_that_are_not_heard_stop_the_watchdog_and_cost_no_worker(self):
        with fake(env=self.manager.environment) as s:
            s.switch("alpha")
            workers = s.worker_pids()
            self.assertEqual(len(workers), 3)
            self.manager.wait_for("WATCHDOG=1")
            try:
                queue = Thawable(thread_of(s.process.pid, "calls"))
            except PermissionError as error:
                self.skipTest(f"nobody may be frozen here: {error}")
            self.addCleanup(queue.thaw)
            with self.assertRaises(AssertionError):
                while True:  # what was under way; then nothing, for longer than a silence may last
                    self.manager.wait_for("WATCHDOG=1", timeout=8)
            self.assertIn("the watchdog is not told: the thread that hears calls", s.read_log())
            queue.thaw()
            self.manager.wait_for("WATCHDOG=1")
            self.assertEqual(s.worker_pids(), workers)
            self.assertEqual(s.generate("alpha")[2].reason, inference.LENGTH)
            self.assertNotIn("hung", s.read_log())

    def test_a_manager_that_does_not_read_holds_nothing_up(self):
        manager = Manager()
        self.addCleanup(manager.close)
        manager.fill()
        with fake(env=manager.environment) as s:
            for voice in ("alpha", "beta", "alpha"):
                s.switch(voice)
            self.assertEqual(s.generate("alpha")[2].reason, inference.LENGTH)
            manager.wait_for("READY=1")  # what found no room comes later
            manager.fill()
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(s.process.wait(10), 0)

    def test_without_a_watchdog_nobody_pets_it(self):
        manager = Manager()
        self.addCleanup(manager.close)
        with fake(env=manager.environment) as s:
            manager.wait_for("READY=1")
            s.switch("alpha")
            manager.wait_for("STATUS=3 models: 1 resident")
            self.assertNotIn("WATCHDOG=1", manager.heard)


class ProbeTest(unittest.TestCase):

    # Alpha's worker runs no step, and nobody but the supervisor asks it; beta's is stopped.
    def test_a_worker_that_does_no_work_ends_its_models_health(self):
        with fake(fault="alpha:token:hang", once=True,
                  config="probe_interval { nanos: 500000000 }") as s:
            s.switch("alpha")
            s.switch("beta")
            os.kill(s.model("beta").worker_pid, signal.SIGSTOP)
            unwell = {}

            def look():
                for name in {"alpha", "beta"} - set(unwell):
                    if not s.serving(name):
                        unwell[name] = s.model(name).error
                return len(unwell) == 2

            wait_for(look, 20, "both to be found out")
            self.assertIn("self-probe", unwell["alpha"])
            self.assertIn("heartbeat", unwell["beta"])
            self.assertTrue(s.serving("gamma"))
            for name in unwell:
                wait_for(lambda: s.serving(name), what=f"{name} to come back")
                model = s.model(name)
                self.assertEqual((model.error, model.restarts, model.requests, model.tokens),
                                 ("", 1, 0, 0))
            # And a probe that has an answer changes nothing.
            s.switch("alpha")
            idle = s.model("alpha").idle_s
            wait_for(lambda: s.model("alpha").idle_s > idle + 1.5, what="some probes")
            model = s.model("alpha")
            self.assertEqual((model.restarts, model.requests, model.tokens), (1, 0, 0))


if __name__ == "__main__":
    unittest.main()
