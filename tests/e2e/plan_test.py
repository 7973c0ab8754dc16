"""Planners: those that hang, those whose parent dies, and checkpoints without weights."""

import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest

from frozen import Frozen, Unreapable
from harness import (BIN, MODELS, WORKER, FakeModels, Supervisor, alive, children, code_of, fake,
                     grpc, model, wait_for)

Code = grpc.StatusCode
REFUSED = Code.FAILED_PRECONDITION
AUSTEN = MODELS / "demo/austen"
WEIGHTS = "model.safetensors"


def planners(pid):
    """The children of `pid` that plan."""
    found = []
    for child in children(pid):
        try:
            words = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"--plan" in words:
            found.append(child)
    return found


def status_of(pid, key):
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return line.split()[1]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None


def check_command(*args):
    return [str(BIN / "switchyard"), "check", *map(str, args)]


class HungPlannerTest(unittest.TestCase):

    def test_it_costs_its_model_alone(self):
        models = FakeModels()
        s = fake(models, fault="beta:plan:hang")
        check = subprocess.Popen(
            check_command("--models-dir", models.path, "--device", "cpu=24MiB", "--json"),
            stdout=subprocess.PIPE, text=True, env=s.environment)
        why = r"planning did not end within 30 s: .*/beta \(.*, mounted at /.*\)"
        with s:
            out, _ = check.communicate(timeout=60)
            self.assertEqual(check.returncode, 1)
            rows = {row["name"]: row for row in json.loads(out)["models"]}
            self.assertRegex(rows["beta"]["error"], why)
            self.assertTrue(rows["alpha"]["fits"] and rows["gamma"]["fits"])

            beta = s.model("beta")
            self.assertEqual(beta.state, model.FAILED)
            self.assertRegex(beta.error, why)
            self.assertEqual(code_of(lambda: s.generate("beta")), REFUSED)
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            self.assertFalse(planners(s.process.pid))

            # The loop goes on while a reload waits, and an end does not wait for it.
            s.process.send_signal(signal.SIGHUP)
            hung = wait_for(lambda: planners(s.process.pid), what="the reload's planner")
            self.assertEqual(len(s.generate("gamma")[1]), 8)
            self.assertEqual(s.stop(timeout=5), 0)
            self.assertFalse(any(map(alive, hung)))

    def test_one_that_cannot_be_reaped_holds_nobody_up(self):
        s = fake(FakeModels(["alpha"]), fault="*:plan:hang")
        starting = subprocess.Popen(s.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    env=s.environment, text=True)
        planner = wait_for(lambda: planners(starting.pid), what="the planner")[0]
        try:
            self.addCleanup(Unreapable(planner).release)
        except PermissionError as error:
            starting.kill()
            starting.communicate()
            self.skipTest(f"CAP_SYS_PTRACE is missing: {error}")
        starting.terminate()
        try:
            out, log = starting.communicate(timeout=5)
        finally:
            starting.kill()
        self.assertEqual((starting.returncode, out), (0, ""), log)


class KilledPlannerTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.killed = pathlib.Path(folder.name, "killed")
        self.worker = pathlib.Path(folder.name, "worker")
        self.worker.write_text(f"""#!/bin/sh
if [ "$1" = --plan ] && [ -e {self.killed} ]; then kill -9 $$; fi
exec {BIN}/fake-worker "$@"
""")
        self.worker.chmod(0o700)
        self.models = FakeModels(["alpha", "beta"])

    def supervisor(self):
        return Supervisor(models=self.models.path, worker=self.worker, device="cpu=24MiB")

    def test_a_reload_does_not_end_what_serves(self):
        with self.supervisor() as s:
            s.switch("alpha")
            self.killed.touch()
            reply = s.command_json("reload")
            self.assertEqual((reply["changed"], reply["not_planned"]), ([], ["alpha", "beta"]))
            self.assertIn("nothing has changed; not planned: alpha, beta", s.read_log())
            alpha = s.model("alpha")
            self.assertEqual((alpha.state, alpha.error, alpha.loads), (model.RESIDENT, "", 1))
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            self.killed.unlink()
            reply = s.command_json("reload")
            self.assertEqual((reply["changed"], reply["not_planned"]), ([], []))

    def test_at_the_start_it_is_a_failure_for_now(self):
        self.killed.touch()
        with self.supervisor() as s:
            alpha = s.model("alpha")
            self.assertEqual(alpha.state, model.FAILED)
            self.assertRegex(alpha.error, "planning ended with signal 9")
            self.assertIn("alpha could not be planned, and is tried again: ", s.read_log())
            self.killed.unlink()
            self.assertEqual(s.command_json("reload")["changed"], ["alpha", "beta"])
            self.assertEqual(len(s.generate("alpha")[1]), 8)


class UnreadableTest(unittest.TestCase):

    def plan(self, checkpoint, descriptors):
        return subprocess.run(
            [BIN / "switchyard-worker", "--plan", "--device", "cpu", "--model-text",
             f'name: "m" checkpoint: "{checkpoint}"'], capture_output=True, text=True, timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors,) * 2))

    def test_what_cannot_be_read_for_now_has_no_verdict(self):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = pathlib.Path(folder)
            shutil.copy(AUSTEN / "config.json", checkpoint)
            shards = {f"t{i}": f"{i}.safetensors" for i in range(64)}
            for tensor, shard in shards.items():
                header = json.dumps({tensor: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
                (checkpoint / shard).write_bytes(
                    struct.pack("<Q", len(header)) + header.encode() + bytes(4))
            (checkpoint / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": shards}))
            short = self.plan(checkpoint, 48)
            self.assertEqual(short.returncode, 3, short.stderr)
            self.assertIn("Too many open files", short.stderr)
            wrong = self.plan(checkpoint, 1024)  # it has none of the model's tensors
            self.assertEqual(wrong.returncode, 1, wrong.stderr)


class LifelineTest(unittest.TestCase):

    def test_planners_end_with_whoever_started_them(self):
        with tempfile.TemporaryDirectory() as folder:
            models = pathlib.Path(folder)
            shutil.copytree(AUSTEN, models / "checkpoint")
            # So that planning takes a while.
            tokenizer = models / "checkpoint/tokenizer.json"
            tokenizer.write_text(tokenizer.read_text() + " " * 60_000_000)
            for name in "abcdefgh":
                (models / f"{name}.textproto").write_text(f'name: "{name}" checkpoint: "checkpoint"')
            for how in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
                check = subprocess.Popen(
                    check_command("--models-dir", models, "--device", "cpu=64MiB"),
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    env=dict(os.environ, SWITCHYARD_WORKER=WORKER))
                held = wait_for(lambda: self.hold(check.pid), 30, "a planner to hold")
                self.addCleanup(self.end, held)
                check.send_signal(how)
                self.assertEqual(check.wait(10), -how)
                wait_for(lambda: not alive(held), what=f"the planner's end after {how!r}")

    def hold(self, pid):
        """Freezes a planner that has begun its work, and returns it. (Not by SIGSTOP: those that
        are stopped when their parent dies are sent SIGHUP.)"""
        for planner in planners(pid):
            # Both come when it has seen to its lifeline; a sanitizer has a thread from the start.
            if status_of(planner, "NoNewPrivs") != "1" or status_of(planner, "Threads") == "1":
                continue
            try:
                Frozen(planner)
                return planner
            except ProcessLookupError:
                continue
            except PermissionError as error:
                self.skipTest(f"CAP_SYS_PTRACE is missing: {error}")
        return None

    @staticmethod
    def end(pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class WithoutWeightsTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.models = pathlib.Path(folder.name)
        for name in ("austen", "bare", "indexed"):
            shutil.copytree(AUSTEN, self.models / "checkpoints" / name)
            (self.models / f"{name}.textproto").write_text(
                f'name: "{name}" checkpoint: "checkpoints/{name}" context_length: 256')
        self.bare = self.models / "checkpoints/bare"
        (self.bare / WEIGHTS).unlink()
        self.indexed = self.models / "checkpoints/indexed"
        (self.indexed / WEIGHTS).rename(self.indexed / "moved")
        (self.indexed / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}))

    def check(self, *args):
        return subprocess.run(
            check_command("--models-dir", self.models, "--device", "cpu=64MiB", *args),
            capture_output=True, text=True, timeout=60,
            env=dict(os.environ, SWITCHYARD_WORKER=WORKER))

    def test_check_shows_sizes_and_says_what_is_missing(self):
        result = self.check("--json")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        rows = {row["name"]: row for row in json.loads(result.stdout)["models"]}
        for name in ("bare", "indexed"):
            self.assertEqual(rows[name]["weight_bytes"], rows["austen"]["weight_bytes"])
        self.assertFalse(any("no weights" in note for note in rows["austen"]["notes"]))
        self.assertRegex("".join(rows["bare"]["notes"]), f"no weights here.*neither {WEIGHTS}")
        self.assertRegex("".join(rows["indexed"]["notes"]),
                         "no weights here.*model-00001-of-00001.safetensors: is missing")
        self.assertEqual(self.check().stdout.count("no weights here"), 2)

    def test_the_supervisor_refuses_it_until_it_is_mended(self):
        smallest = json.loads(self.check("--json").stdout)["models"][0]["smallest_bytes"]
        with Supervisor(models=self.models, device=f"cpu={smallest * 3 // 2}") as s:
            s.switch("austen")  # which leaves room for nobody else
            for name, word in (("bare", WEIGHTS), ("indexed", "model-00001-of-00001.safetensors")):
                failed = s.model(name)
                self.assertEqual(failed.state, model.FAILED)
                self.assertIn(word, failed.error)
                self.assertIn(f"model {name} cannot be served", s.read_log())
                self.assertEqual(code_of(lambda: s.generate(name)), REFUSED)
                self.assertEqual(code_of(lambda: s.switch(name)), REFUSED)
            austen = s.model("austen")
            self.assertEqual((austen.state, austen.loads), (model.RESIDENT, 1))

            shutil.copy(AUSTEN / WEIGHTS, self.bare)
            self.assertEqual(s.command_json("reload")["changed"], ["bare"])
            self.assertEqual(s.generate("bare")[1], s.generate("austen")[1])
            (self.bare / WEIGHTS).unlink()
            self.assertEqual(s.command_json("reload")["changed"], ["bare"])
            wait_for(lambda: s.model("bare").state == model.FAILED, what="it to be failed again")
            self.assertEqual(code_of(lambda: s.generate("bare")), REFUSED)


if __name__ == "__main__":
    unittest.main(verbosity=2)
