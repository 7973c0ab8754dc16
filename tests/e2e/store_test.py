"""Masters that a service manager keeps: what the next supervisor does with them, and refuses."""

import fcntl
import os
import pathlib
import shutil
import signal
import tempfile
import unittest

from harness import MODELS, Supervisor, model, wait_for
from service_manager import Manager

TWO = ["austen", "joyce"]
SEALS = 0x2 | 0x4 | 0x10  # F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE
F_ADD_SEALS, F_GET_SEALS = 1033, 1034


def memfd(size, content=b"", seals=SEALS):
    fd = os.memfd_create("store_test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, size)
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


class StoreTest(unittest.TestCase):

    def setUp(self):
        self.models = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-store-"))
        self.addCleanup(shutil.rmtree, self.models)
        for voice in TWO:
            shutil.copy(MODELS / f"{voice}.textproto", self.models)
            shutil.copytree(MODELS / "demo" / voice, self.models / "demo" / voice)
        self.manager = Manager()
        self.addCleanup(self.manager.close)

    def weights(self, voice):
        return self.models / "demo" / voice / "model.safetensors"

    def supervisor(self, more=(), **kwargs):
        """One that finds what the one before it left, and `more` (name, fd)."""
        s = Supervisor(models=self.models, env=self.manager.environment,
                       config="prefetch_at_start: false", **kwargs)
        return self.manager.handed_over(s, more) if self.manager.stored or more else s

    def state(self, s, voice):
        return s.model(voice).state

    def load(self, s, voice):
        """Makes it resident: its answer, and whether its image had to be read."""
        last = s.switch(voice)[-1]
        image = s.model(voice).weight_bytes
        self.assertIn(last.bytes_total, (image, 2 * image))
        return s.generate(voice)[1], last.bytes_total > image

    def killed_after(self, voices):
        """Has a supervisor fill these masters, and die: the answers."""
        s = self.supervisor().start()
        try:
            self.assertEqual(self.manager.stored, {})
            answers = {}
            for voice in voices:
                answers[voice], cold = self.load(s, voice)
                self.assertTrue(cold)
            self.manager.hear_until(lambda: len(self.manager.stored) == len(voices))
            self.image = {m.name: m.weight_bytes for m in s.status().models}
        finally:
            s.kill()
        for fd in self.manager.stored.values():
            self.assertEqual(fcntl.fcntl(fd, F_GET_SEALS) & SEALS, SEALS)
        return answers

    def name_of(self, voice):
        (name,) = [n for n in self.manager.stored if n.startswith(f"master/{voice}/")]
        return name

    def removed(self):
        prefix = "FDSTOREREMOVE=1\nFDNAME="
        return [m[len(prefix):] for m in self.manager.heard if m.startswith(prefix)]

    def spoil(self, voice):
        """Other weights in a file that looks the same: whoever reads it gives other answers."""
        path = self.weights(voice)
        before = path.stat()
        with open(path, "r+b") as f:
            f.seek(before.st_size // 2)
            f.write(bytes(before.st_size // 2))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def test_the_next_one_is_warm_and_reads_no_weights(self):
        expected = self.killed_after(["austen"])["austen"]
        self.spoil("austen")
        for _ in range(2):
            s = self.supervisor().start()
            try:
                wait_for(lambda: self.state(s, "austen") == model.WARM, what="the master")
                wait_for(lambda: s.model("joyce").worker_pid, what="the other's worker")
                self.assertEqual(self.state(s, "joyce"), model.COLD)
                self.assertEqual(s.status().host.used_bytes, self.image["austen"])
                self.assertEqual(self.load(s, "austen"), (expected, False))
                self.check_worker(s.model("joyce").worker_pid)
                os.kill(s.model("austen").worker_pid, signal.SIGKILL)
                self.assertEqual(s.generate("austen")[1], expected)
                self.manager.wait_for("STATUS=2 models: 1 resident (austen)")
            finally:
                s.kill()
            self.assertEqual(len(self.manager.stored), 1)
            self.assertEqual(self.removed(), [])

    def check_worker(self, pid):
        """It has nothing of what was handed over to the supervisor."""
        if os.geteuid() != 0:
            return
        environment = pathlib.Path(f"/proc/{pid}/environ").read_text()
        self.assertNotIn("LISTEN_", environment)
        self.assertNotIn("NOTIFY_SOCKET", environment)
        folder = f"/proc/{pid}/fd"
        for n in os.listdir(folder):
            self.assertNotIn("memfd:", os.readlink(f"{folder}/{n}"))

    def test_one_that_is_told_to_stop_leaves_them_and_one_that_unloads_does_not(self):
        with self.supervisor() as s:
            for voice in TWO:
                s.command_json("prefetch", voice)
            self.manager.hear_until(lambda: len(self.manager.stored) == 2)
            joyce = self.name_of("joyce")
            s.command_json("unload", "joyce")
            self.manager.hear_until(lambda: len(self.manager.stored) == 1)
            self.assertEqual(self.removed(), [joyce])
            self.assertEqual(s.stop(), 0)
        self.manager.wait_for("STOPPING=1")
        self.assertEqual(self.removed(), [joyce])
        with self.supervisor() as s:
            wait_for(lambda: self.state(s, "austen") == model.WARM, what="the master")

    def test_what_is_not_a_master_is_refused(self):
        expected = self.killed_after(["austen"])["austen"]
        name = self.name_of("austen")
        self.manager.remove(name)
        size = self.image["austen"]
        reader, writer = os.pipe()
        more = [(name, memfd(size - 4096)),  # cut short
                (name, memfd(0)),
                (name, memfd(size, os.urandom(1 << 20), seals=0)),  # who wrote that did not finish
                (name, reader),
                (name.replace("austen", "nobody"), memfd(size)),
                (name.replace("austen", "joyce"), memfd(size)),
                ("stored", writer)]
        with self.supervisor(more) as s:
            for _, fd in more:
                os.close(fd)
            names = {name for name, _ in more}
            self.manager.hear_until(lambda: names <= set(self.removed()))
            self.assertEqual(set(self.removed()), names)
            log = s.read_log()
            for why in (f"it has {size - 4096} bytes", "it has 0 bytes", "not sealed",
                        "not a memfd", "no model has a master of that name",
                        "checkpoint or options have changed"):
                self.assertIn(why, log)
            self.assertEqual(log.count("which the service manager kept"), len(more))
            self.assertEqual(s.status().host.used_bytes, 0)
            self.assertEqual(self.load(s, "austen"), (expected, True))
            self.manager.hear_until(lambda: self.manager.stored)

    def check_refused(self, voice):
        """The next supervisor does not take what was stored of it, and serves."""
        name = self.name_of(voice)
        with self.supervisor() as s:
            self.manager.hear_until(lambda: name in self.removed())
            self.assertEqual(self.state(s, voice), model.COLD)
            self.assertIn("checkpoint or options have changed", s.read_log())
            answer, cold = self.load(s, voice)
            self.assertTrue(cold)
            self.manager.hear_until(lambda: self.manager.stored)
            self.assertNotEqual(self.name_of(voice), name)
        return answer

    def test_a_checkpoint_that_was_touched(self):
        expected = self.killed_after(["austen"])["austen"]
        os.utime(self.weights("austen"))
        self.assertEqual(self.check_refused("austen"), expected)

    def test_a_checkpoint_that_was_replaced(self):
        expected = self.killed_after(TWO)
        self.manager.remove(self.name_of("austen"))
        shutil.rmtree(self.models / "demo/joyce")
        shutil.copytree(MODELS / "demo/austen", self.models / "demo/joyce")
        self.assertEqual(self.check_refused("joyce"), expected["austen"])

    def test_other_options(self):
        self.killed_after(["austen"])
        with open(self.models / "austen.textproto", "a") as f:
            f.write("quantize: FP8\n")
        self.check_refused("austen")

    def test_more_than_the_host_budget(self):
        expected = self.killed_after(TWO)
        joyce = self.name_of("joyce")
        budget = sum(self.image.values()) - 1
        with self.supervisor(host=str(budget)) as s:
            self.manager.hear_until(lambda: joyce in self.removed())
            self.assertEqual(list(self.manager.stored), [self.name_of("austen")])
            self.assertIn("does not fit what is left of the host budget", s.read_log())
            self.assertEqual(s.status().host.used_bytes, self.image["austen"])
            self.assertEqual(self.load(s, "austen"), (expected["austen"], False))
            # And it gives way as any other does.
            s.command_json("prefetch", "joyce")
            self.assertLessEqual(s.status().host.used_bytes, budget)


if __name__ == "__main__":
    unittest.main()
