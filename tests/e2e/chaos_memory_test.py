"""Memory, disks and files that are there one moment and not the next."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest

from chaos import Background, answers, fault, pause, together
from harness import (MODELS, VOICES, Supervisor, code_of, control, end_of, first_token, grpc, model,
                     wait_for)

Code = grpc.StatusCode
MIB = 1 << 20


class BudgetTest(unittest.TestCase):

    @fault("memory taken and given: a budget change", 20, 100)
    def test_leases_follow(self, rounds):
        s = Supervisor(device=None, config='devices: "cpu=64MiB"')
        config = pathlib.Path(s.directory, "config.textproto")
        with s:
            expected = answers(s)
            over = threading.Event()
            refused = [0]

            def client(voice):
                while not over.is_set():
                    try:
                        self.assertEqual(s.generate(voice, timeout=60)[1], expected[voice])
                    except grpc.RpcError as error:
                        # What does not fit now says so.
                        self.assertIn(error.code(), (Code.FAILED_PRECONDITION, Code.UNAVAILABLE,
                                                     Code.RESOURCE_EXHAUSTED, Code.ABORTED),
                                      error.details())
                        refused[0] += 1
                        pause(0.01)

            clients = [Background(lambda v=v: client(v)) for v in VOICES]
            for _ in rounds:
                mib = rounds.random.choice([4, 12, 16, 24, 32, 48, 64, 128])
                config.write_text(f'devices: "cpu={mib}MiB"')
                s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=30)
                device = s.status().devices[0]
                self.assertEqual(device.capacity_bytes, mib * MIB)
                wait_for(lambda: s.status().devices[0].leased_bytes <= mib * MIB, 30,
                         f"leases of {mib} MiB at most")
                pause(rounds.random.uniform(0, 0.2))
            over.set()
            for each in clients:
                each.join()
            config.write_text('devices: "cpu=64MiB"')
            s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=30)
            self.assertEqual(answers(s), expected)
            self.assertEqual(sum(m.restarts for m in s.status().models), 0)
        rounds.note(refused=refused[0])


class Checkpoints(unittest.TestCase):
    """Copies of two voices in a directory of their own: one to be damaged, one beside it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.models = pathlib.Path(folder.name)
        for name, voice in [("victim", "joyce"), ("other", "austen")]:
            shutil.copytree(MODELS / "demo" / voice, self.models / name)
            self.write(name)

    def write(self, name, extra=""):
        (self.models / f"{name}.textproto").write_text(
            f'name: "{name}" checkpoint: "{name}" context_length: 1024 max_sequences: 8 {extra}\n')


class FileTest(Checkpoints):

    def spoil(self, chance):
        weights = self.models / "victim/model.safetensors"
        how = chance.choice(["truncated", "replaced", "removed"])
        if how == "truncated":
            os.truncate(weights, chance.randrange(weights.stat().st_size))
        elif how == "removed":
            weights.unlink()
        else:
            spare = self.models / "spare"
            shutil.copy(MODELS / "demo/whitman/model.safetensors", spare)
            spare.rename(weights)
        return how

    def restore(self, s):
        spare = self.models / "spare"
        shutil.copy(MODELS / "demo/joyce/model.safetensors", spare)
        spare.rename(self.models / "victim/model.safetensors")
        s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=30)

    def answer_of(self, s):
        """(What the victim says, None), or (None, the error that it fails with)."""
        try:
            return s.generate("victim")[1], None
        except grpc.RpcError as error:
            return None, error

    def answer_when_replaced(self):
        """What the victim says if the other's weights were there from the beginning, if anything."""
        shutil.copytree(self.models / "victim", self.models / "spoilt")
        (self.models / "spoilt.textproto").write_text(
            (self.models / "victim.textproto").read_text().replace("victim", "spoilt"))
        shutil.copy(MODELS / "demo/whitman/model.safetensors", self.models / "spoilt")
        with Supervisor(models=self.models, device="cpu=32MiB") as s:
            try:
                return s.generate("spoilt")[1]
            except grpc.RpcError:
                return None
            finally:
                (self.models / "spoilt.textproto").unlink()

    @fault("file truncated, replaced or removed during load", 5, 100)
    def test_during_load(self, rounds):
        replaced = self.answer_when_replaced()
        with Supervisor(models=self.models, device="cpu=32MiB",
                        config="prefetch_at_start: false") as s:
            expected = {name: s.generate(name)[1] for name in ("victim", "other")}
            failed = 0
            for _ in rounds:
                s.control.Unload(control.UnloadRequest(model="victim"), timeout=30)
                load = Background(lambda: self.answer_of(s))
                pause(rounds.random.uniform(0, 0.08))
                how = self.spoil(rounds.random)
                answer, error = load.join()
                if answer is not None:  # all of one file: never some weights of either
                    self.assertIn(answer, [expected["victim"], replaced if how == "replaced"
                                           else None], how)
                else:
                    failed += 1
                    self.assertIn(error.code(), (Code.FAILED_PRECONDITION, Code.DATA_LOSS,
                                                 Code.INVALID_ARGUMENT, Code.NOT_FOUND,
                                                 Code.UNAVAILABLE), how)
                    # That would be weights of both.
                    self.assertNotIn("logits are not numbers", error.details(), how)
                    self.assertTrue(s.model("victim").last_failure or s.model("victim").error, how)
                self.assertEqual(s.generate("other")[1], expected["other"])
                self.restore(s)
                s.switch("victim")
                self.assertEqual(s.generate("victim")[1], expected["victim"], how)
        rounds.note(failed=failed)


class DiskTest(Checkpoints):

    def full_disk(self):
        """A file system of one page, or a skip where we may not mount one."""
        mounted = subprocess.run(["unshare", "-m", "true"], capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("no mount namespace")
        return ["unshare", "-m", "sh", "-c",
                'mount -t tmpfs -o size=4k none "$0" && exec "$@"']

    @fault("disk full", 5, 100)
    def test_no_room_for_the_cache(self, rounds):
        for name in ("victim", "other"):
            self.write(name, "quantize: INT4")  # an image that is kept in the cache
        before = self.full_disk()
        for _ in rounds:
            s = Supervisor(models=self.models, device="cpu=32MiB")
            cache = os.path.join(s.directory, "cache")
            os.mkdir(cache)
            s.command = [*before, cache, *s.command]
            with s:
                names = rounds.random.sample(["victim", "other"], 2)
                expected = {name: s.generate(name)[1] for name in names}
                for name in names:  # again, from what the cache did not keep
                    s.control.Unload(control.UnloadRequest(model=name), timeout=30)
                    self.assertEqual(s.generate(name)[1], expected[name])
                self.assertIn("cache", s.read_log())

    def test_no_room_for_the_log(self):
        with Supervisor(models=self.models, device="cpu=32MiB") as s:
            expected = s.generate("other")[1]
        s = Supervisor(models=self.models, device="cpu=32MiB")
        s.command = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", *s.command]
        with s:
            self.assertEqual(s.generate("other")[1], expected)
            s.control.Unload(control.UnloadRequest(model="other"), timeout=30)
            self.assertEqual(s.generate("other")[1], expected)


class HostMemory:
    """What a supervisor and its workers take for the host's available memory: a file of ours in the
    place of /proc/meminfo, which only they see."""

    def __init__(self):
        self._file = tempfile.NamedTemporaryFile()
        self._real = pathlib.Path("/proc/meminfo").read_text()
        self.give_back()

    def _write(self, available):
        lines = [f"MemAvailable: {available >> 10:>12} kB" if line.startswith("MemAvailable:")
                 else line for line in self._real.splitlines()]
        # In one piece, and of one length: whoever reads meanwhile reads one or the other.
        os.pwrite(self._file.fileno(), ("\n".join(lines) + "\n").encode(), 0)

    def leave(self, available):
        self._write(available)

    def give_back(self):
        self._write(16 << 30)

    def seen_by(self, s):
        s.command = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /proc/meminfo && exec "$@"',
                     self._file.name, *s.command]


class HostTest(unittest.TestCase):

    @fault("host memory short", 5, 100)
    def test_who_is_there_serves_on(self, rounds):
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
            self.skipTest("no mount namespace")
        memory = HostMemory()
        s = Supervisor(device="cpu=96MiB", config="prefetch_at_start: false")
        memory.seen_by(s)
        refused = 0
        with s:
            expected = answers(s)
            for _ in rounds:
                here, wanted = rounds.random.sample(VOICES, 2)
                s.control.Unload(control.UnloadRequest(model=wanted), timeout=30)
                s.switch(here)
                stream = s.inference.Generate(s.request(here, tokens=200), timeout=60)
                first_token(stream)
                # Of its master, or of its lease alone: this device is the host's memory, too.
                if rounds.random.random() < 0.3:
                    s.control.Prefetch(control.PrefetchRequest(model=wanted), timeout=30)
                # Before anything of it has been read, or at some moment of that.
                early = rounds.random.random() < 0.5
                if early:
                    memory.leave(rounds.random.randrange(64 * MIB))
                asked = Background(lambda: self.answer_of(s, wanted))
                pause(rounds.random.uniform(0, 0.05))
                memory.leave(rounds.random.randrange(64 * MIB))
                answer, error = asked.join()
                if error:
                    refused += 1
                    self.assertEqual(error.code(), Code.RESOURCE_EXHAUSTED, error.details())
                    self.assertIn("the host is short of memory", error.details())
                    self.assertIn("the host is short of memory", s.model(wanted).error)
                    self.assertNotEqual(s.model(wanted).state, model.FAILED)
                else:
                    self.assertFalse(early, "there was no memory for it")
                    self.assertEqual(answer, expected[wanted])
                self.assertEqual(s.generate(here)[1], expected[here])
                self.assertEqual(end_of(stream), (Code.OK, True))
                memory.give_back()
                self.assertEqual(s.generate(wanted, timeout=90)[1], expected[wanted])
                self.assertEqual(s.model(wanted).error, "")
            self.assertEqual(sum(m.restarts for m in s.status().models), 0)
        rounds.note(refused=refused)

    def answer_of(self, s, name):
        """(What it says, None), or (None, the error that it fails with)."""
        try:
            return s.generate(name)[1], None
        except grpc.RpcError as error:
            return None, error

    @fault("host budget short", 5, 100)
    def test_one_master_at_a_time(self, rounds):
        with Supervisor() as s:
            expected = answers(s)
            largest = max(m.weight_bytes for m in s.status().models)
        # Room for the largest and a half: masters make way for one another all the time.
        with Supervisor(device="cpu=48MiB", host=f"{largest * 3 // 2}") as s:
            for _ in rounds:
                voices = rounds.random.sample(VOICES, 6)
                results = together([lambda v=v: s.generate(v, timeout=60)[1] for v in voices])
                self.assertEqual(dict(zip(voices, results)), expected)
                host = s.status().host
                self.assertLessEqual(host.used_bytes, host.budget_bytes)

    def test_none_that_fits(self):
        with Supervisor() as s:
            sizes = sorted((m.weight_bytes, m.name) for m in s.status().models)
        between = (sizes[0][0] + sizes[-1][0]) // 2
        with Supervisor(host=str(between)) as s:
            for size, name in sizes:
                code = code_of(lambda name=name: s.generate(name))
                self.assertEqual(code, Code.OK if size <= between else Code.FAILED_PRECONDITION)


if __name__ == "__main__":
    unittest.main(verbosity=2)
