"""The faults that a running supervisor can meet, mixed, under load: nothing of what it and its
workers use grows. Left out are those that need one of their own: the supervisor's own end, a full
disk, too little host memory.

SWITCHYARD_CHAOS_SOAK: seconds; at night 1,800.
"""

import os
import pathlib
import shutil
import signal
import socket
import threading
import time
import unittest

from chaos import NIGHTLY, Background, answers, fault, hit, models_of, pause
from harness import (MODELS, VOICES, Supervisor, alive, code_of, control, descriptors, grpc,
                     inference_pb2_grpc, rss_bytes, wait_for)

Code = grpc.StatusCode
SECONDS = float(os.environ.get("SWITCHYARD_CHAOS_SOAK") or (1800 if NIGHTLY else 10))
MIB = 1 << 20
# What may befall a request here; any other status is a fault of ours.
MAY_BE = (Code.OK, Code.UNAVAILABLE, Code.ABORTED, Code.RESOURCE_EXHAUSTED,
          Code.FAILED_PRECONDITION, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.DATA_LOSS,
          Code.NOT_FOUND, Code.INVALID_ARGUMENT)


def may_be(error):
    """Files are cut short here, but whatever is served is all of one."""
    return error.code() in MAY_BE and "logits are not numbers" not in error.details()


class Faults:
    """What goes wrong, by name; each takes the soak's chance and hurts one thing."""

    def __init__(self, s, models, chance):
        self.s, self.models, self.chance = s, models, chance
        self.drawn = {}
        self.sizes = pathlib.Path(s.directory, "config.textproto")

    def kill(self):
        hit(self.s.model(self.chance.choice(VOICES)).worker_pid, signal.SIGKILL)

    def stop(self):
        hit(self.s.model(self.chance.choice(VOICES)).worker_pid, signal.SIGSTOP)

    def stop_as_it_starts(self):
        voice = self.chance.choice(VOICES)
        before = self.s.model(voice).worker_pid
        hit(before, signal.SIGKILL)
        started = lambda: self.s.model(voice).worker_pid not in (0, before)
        try:  # not for as long as a back-off may take
            wait_for(started, 2)
        except AssertionError:
            return
        hit(self.s.model(voice).worker_pid, signal.SIGSTOP)

    def vanish(self):
        with grpc.insecure_channel(self.s.address) as channel:
            stream = inference_pb2_grpc.InferenceStub(channel).Generate(
                self.s.request(self.chance.choice(VOICES), tokens=900), timeout=5)
            pause(self.chance.uniform(0, 0.05))
            stream.cancel()

    def stall(self):
        """A client that reads nothing for a while."""
        with grpc.insecure_channel(self.s.address) as channel:
            stream = inference_pb2_grpc.InferenceStub(channel).Generate(
                self.s.request(self.chance.choice(VOICES), tokens=900), timeout=5)
            pause(self.chance.uniform(0, 1))
            stream.cancel()

    def expire(self):
        code_of(lambda: self.s.inference.Generate(
            self.s.request(self.chance.choice(VOICES), tokens=900),
            timeout=self.chance.uniform(0.001, 0.1)))

    def oversize(self):
        voice = self.chance.choice(VOICES)
        large = self.chance.choice([self.s.request(voice, "x" * 17 * MIB),
                                    self.s.request(voice, "word " * (MIB // 5)),
                                    self.s.request(voice, stop={"stop": ["x" * 8 * MIB]})])
        code = code_of(lambda: self.s.inference.Generate(large, timeout=30))
        assert code in MAY_BE and code != Code.OK, code

    def spoil(self):
        """A file is cut short while its model is loaded, and comes back."""
        voice = self.chance.choice(VOICES)
        weights = self.models / f"demo/{voice}/model.safetensors"
        spare = weights.with_name("spare")
        shutil.copy(weights, spare)
        try:
            self.s.control.Unload(control.UnloadRequest(model=voice), timeout=60)
            os.truncate(weights, self.chance.randrange(weights.stat().st_size))
            pause(self.chance.uniform(0, 0.1))
        finally:
            spare.rename(weights)
        self.s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=60)

    def storm(self):
        host, port = self.s.address.split(":")
        for each in [socket.create_connection((host, int(port)), timeout=20) for _ in range(200)]:
            each.close()

    def switch(self):
        self.s.control.Switch(control.SwitchRequest(model=self.chance.choice(VOICES)))

    def unload(self):
        self.s.control.Unload(control.UnloadRequest(model=self.chance.choice(VOICES)), timeout=60)

    def size(self, mib):
        self.sizes.write_text(f'devices: "cpu={mib}MiB"')

    def sizes_change(self):
        self.size(self.chance.choice([24, 48, 64]))
        self.s.process.send_signal(signal.SIGHUP)

    def model_changes(self):
        entry = self.models / f"{self.chance.choice(VOICES)}.textproto"
        text = entry.read_text()
        entry.write_text(text.replace("max_sequences: 8", "max_sequences: 7")
                         if "max_sequences: 8" in text
                         else text.replace("max_sequences: 7", "max_sequences: 8"))
        self.s.process.send_signal(signal.SIGHUP)

    def bad_model(self):
        bad = self.models / "zeta.textproto"
        bad.write_text("what?")
        self.s.process.send_signal(signal.SIGHUP)
        pause(0.2)
        bad.unlink()

    def draw(self):
        self.run(self.chance.choice([*self.kinds(), self.vanish, self.switch]))

    def kinds(self):
        return [self.kill, self.stop, self.stop_as_it_starts, self.vanish, self.stall, self.expire,
                self.oversize, self.spoil, self.storm, self.switch, self.unload, self.sizes_change,
                self.model_changes, self.bad_model]

    def run(self, fault):
        try:
            fault()
        except grpc.RpcError as error:  # of an operator's call: its model is failing, say
            assert may_be(error), error
        self.drawn[fault.__name__] = self.drawn.get(fault.__name__, 0) + 1


class SoakTest(unittest.TestCase):

    def setUp(self):
        self.models = models_of(VOICES, self.addCleanup)
        (self.models / "demo").unlink()  # a copy, since files of it are spoilt
        shutil.copytree(MODELS / "demo", self.models / "demo")

    def client(self, s, expected, over, codes):
        number = 0
        while not over.is_set():
            voice = VOICES[number % len(VOICES)]
            number += 1
            try:
                ids = s.generate(voice, timeout=30)[1]
                self.assertEqual(ids, expected[voice])
                code = Code.OK
            except grpc.RpcError as error:
                code = error.code()
                self.assertTrue(may_be(error), error)
                pause(0.05)
            codes[code] = codes.get(code, 0) + 1

    def measure(self, s, faults, expected):
        """Memory, the workers' beyond what they have leased, and descriptors, once everything is
        well again and every model has served."""
        faults.size(64)
        s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=60)
        for voice in VOICES:
            s.switch(voice, 180)  # forgives what failed
            self.assertEqual(s.generate(voice, timeout=60)[1], expected[voice])
        wait_for(lambda: len(s.worker_pids()) == len(VOICES), 180, "all workers")
        wait_for(lambda: not any(m.running or m.queued for m in s.status().models), 10, "quiet")
        workers = sum(map(rss_bytes, s.worker_pids()))
        return (rss_bytes(s.process.pid), workers - s.status().devices[0].leased_bytes,
                descriptors(s.process.pid))

    def run_for(self, seconds, s, faults, rounds, expected, codes):
        over = threading.Event()
        clients = [Background(lambda: self.client(s, expected, over, codes)) for _ in range(4)]
        end = time.monotonic() + seconds
        while time.monotonic() < end and rounds.begin():
            faults.draw()
            pause(rounds.random.uniform(0, 1))
        over.set()
        for each in clients:
            each.join(90)
        return self.measure(s, faults, expected)

    @fault("soak: all faults mixed", 10 ** 9, 10 ** 9)
    def test_nothing_grows(self, rounds):
        s = Supervisor(models=self.models, device=None, config='devices: "cpu=64MiB"')
        with s:
            expected, codes = answers(s), {}
            faults = Faults(s, self.models, rounds.random)
            for each in faults.kinds():  # what one of them costs for good is no growth
                faults.run(each)
            early = self.run_for(SECONDS / 4, s, faults, rounds, expected, codes)
            late = self.run_for(SECONDS * 3 / 4, s, faults, rounds, expected, codes)
            self.assertTrue(alive(s.process.pid))
        rounds.times = rounds.done
        answered = codes.get(Code.OK, 0)
        rounds.note(answered=answered, refused=sum(codes.values()) - answered,
                    rss_mib=[m >> 20 for m, _, _ in (early, late)],
                    workers_mib=[w >> 20 for _, w, _ in (early, late)],
                    descriptors=[d for _, _, d in (early, late)], faults=faults.drawn)
        self.assertLess(late[0], early[0] + 8 * MIB)
        self.assertLess(late[1], early[1] + len(VOICES) * 8 * MIB)
        # As many as then, and a connection or two more or less.
        self.assertLess(late[2], early[2] + 8)
        self.assertGreater(answered, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
