"""Models whose images are larger than the host's memory budget: read from the disk each time."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import BIN, Supervisor, control, inference, model

MIB = 1 << 20
HOST = 16 * MIB  # less than either image; a ring is a quarter of it
RING = HOST // 4
# About 45 MiB as stored, and half of that in fp8.
SHAPE = ["--shape", "llama-1b", "--hidden", "256", "--layers", "24", "--q-heads", "4", "--kv-heads",
         "2", "--head-dim", "64", "--intermediate", "1024", "--vocabulary", "2048", "--tied"]
MODELS = {"copied": "", "quantized": "quantize: FP8"}


def memory(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


class StreamedTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.path = tempfile.mkdtemp(prefix="switchyard-cold-")
        cls.addClassCleanup(shutil.rmtree, cls.path, ignore_errors=True)
        for seed, (name, extra) in enumerate(MODELS.items()):
            subprocess.run([str(BIN / "switchyard-bench"), "make-model", f"{cls.path}/{name}",
                            *SHAPE, "--seed", str(seed + 1)], check=True, stdout=subprocess.DEVNULL)
            pathlib.Path(cls.path, f"{name}.textproto").write_text(
                f'name: "{name}" checkpoint: "{name}" context_length: 64 max_sequences: 1 {extra}\n')
        with Supervisor(models=cls.path, device="cpu=1GiB", host="1GiB") as s:
            cls.expected = {name: cls.tokens(s, name) for name in MODELS}
            status = s.status()
            cls.image = {m.name: m.weight_bytes for m in status.models}
            # Room for either model, not for both.
            cls.device = max(l.fixed_bytes + l.weight_bytes + l.kv_bytes
                             for l in status.devices[0].leases)
            cls.device += min(m.fixed_bytes for m in status.models) + MIB
            assert not any(m.streamed for m in status.models)

    @staticmethod
    def tokens(s, name):
        return s.generate(name, ids=inference.TokenIds(ids=[5, 6, 7, 8, 9]), tokens=16)[1]

    def supervisor(self):
        return Supervisor(models=self.path, device=f"cpu={self.device}", host=str(HOST))

    def cached_image(self, s):
        (path,) = pathlib.Path(s.directory, "cache").glob("*.image")
        return path

    def check_host(self, s):
        status = s.status()
        self.assertLessEqual(status.host.used_bytes, HOST)
        for m in status.models:
            self.assertGreater(m.weight_bytes, HOST)
            self.assertTrue(m.streamed)
            self.assertIn(m.master_bytes, (0, RING))
            # What is shared is the ring; of its own, a worker has what its lease says.
            held = m.resident_bytes + m.kv_bytes + m.fixed_bytes
            self.assertLessEqual(memory(m.worker_pid, "RssShmem"), RING + MIB, m.name)
            self.assertLessEqual(memory(m.worker_pid, "RssAnon"), held + MIB, m.name)

    def test_two_of_them_take_turns_and_say_what_they_would_say(self):
        with self.supervisor() as s:
            for _ in range(3):
                for name in MODELS:
                    last = s.switch(name)[-1]
                    self.assertEqual(last.phase, control.READY)
                    self.assertEqual(s.model(name).state, model.RESIDENT)
                    self.assertEqual(self.tokens(s, name), self.expected[name])
                    self.check_host(s)
                    other = next(n for n in MODELS if n != name)
                    self.assertEqual(s.model(other).state, model.COLD)
            self.assertEqual(self.cached_image(s).stat().st_size // MIB,
                             self.image["quantized"] // MIB)

    def test_a_worker_that_is_lost_comes_back(self):
        with self.supervisor() as s:
            for name in MODELS:
                self.assertEqual(self.tokens(s, name), self.expected[name])
                os.kill(s.model(name).worker_pid, signal.SIGKILL)
                self.assertEqual(self.tokens(s, name), self.expected[name])

    def test_a_damaged_or_missing_image_is_made_again(self):
        with self.supervisor() as s:
            self.assertEqual(self.tokens(s, "quantized"), self.expected["quantized"])
            s.switch("copied")
            path = self.cached_image(s)
            with open(path, "r+b") as f:
                f.seek(path.stat().st_size // 2)
                f.write(bytes(64))
            self.assertEqual(self.tokens(s, "quantized"), self.expected["quantized"])
            self.assertIn("is not what was written", s.read_log())
            # Without a file, and with a worker that does not hold it open.
            s.switch("copied")
            self.cached_image(s).unlink()
            os.kill(s.model("quantized").worker_pid, signal.SIGKILL)
            self.assertEqual(self.tokens(s, "quantized"), self.expected["quantized"])

    def test_check_and_status_say_so(self):
        check = subprocess.run(
            [str(BIN / "switchyard-supervisor"), "--check", "--models-dir", self.path, "--device",
             f"cpu={self.device}", "--host-memory", str(HOST)], capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stderr)
        self.assertEqual(check.stdout.count("streamed"), 2)
        with self.supervisor() as s:
            self.assertIn("streamed", s.command_line("models").stdout)
            self.assertEqual(s.command_json("prefetch", "copied"),
                             {"model": "copied", "master_bytes": RING, "streamed": True})

    def test_a_budget_without_room_for_a_ring_is_refused_with_the_arithmetic(self):
        with Supervisor(models=self.path, device=f"cpu={self.device}", host=str(HOST - 1)) as s:
            failed = s.model("copied")
            self.assertEqual(failed.state, model.FAILED)
            self.assertIn("a budget of 16777216 bytes to be read from the disk each time", failed.error)


if __name__ == "__main__":
    unittest.main(verbosity=2)
