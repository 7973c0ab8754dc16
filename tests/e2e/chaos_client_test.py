"""Clients that come in herds, go away, do not read, and ask for too much."""

import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

import bare_http2
from chaos import DEVICE, MachineDelays, answers, check_ledger, fault, models_of, pause, together
from harness import (BIN, VOICES, Supervisor, children, code_of, control, descriptors, fake,
                     first_token, forget_peak, grpc, inference, inference_pb2_grpc, peak_bytes,
                     rss_bytes, spare_descriptors, wait_for)

Code = grpc.StatusCode


def quiet(s):
    """Nothing is in flight, and no block of KV is in use."""
    return not any(m.running or m.queued or m.paused or m.kv_blocks_used
                   for m in s.status().models)


class IdleTest(unittest.TestCase):
    TIMEOUT = 0.02

    @fault("idle-timeout unload racing a request", 300, 10000)
    def test_a_race(self, rounds):
        models = models_of(VOICES[:3], self.addCleanup,
                           f"idle_timeout {{ nanos: {self.TIMEOUT * 1e9:.0f} }}")
        with Supervisor(models=models, device=f"cpu={DEVICE}") as s:
            expected = answers(s, tokens=2, voices=VOICES[:3])

            def client(voice):
                while rounds.begin():
                    self.assertEqual(s.generate(voice, tokens=2)[1], expected[voice])
                    # Around the moment at which it goes to sleep.
                    pause(rounds.random.gauss(self.TIMEOUT, self.TIMEOUT / 8) % 1)

            together([lambda v=v: client(v) for v in VOICES[:3]], timeout=7200)
            slept = s.read_log().count("goes to sleep")
            check_ledger(self, s)
        rounds.note(slept=slept)
        self.assertGreater(slept, rounds.done // 20)


class HerdTest(unittest.TestCase):
    CLIENTS = 32

    def loads(self, s):
        return sum(m.loads for m in s.status().models)

    @fault("switch herd: 32 clients x all six models", 32, 1024)
    def test_switches(self, rounds):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            expected = answers(s)
            before, slowest = self.loads(s), 0
            for _ in rounds:
                # All of them ask for one model after the other.
                for voice in rounds.random.sample(VOICES, len(VOICES)):
                    start = time.monotonic()
                    last = together([lambda: s.switch(voice, 60)[-1].phase] * self.CLIENTS)
                    slowest = max(slowest, time.monotonic() - start)
                    self.assertEqual(set(last), {control.READY})
                self.assertEqual(s.generate("")[1], expected[voice])  # the default now
            loads = self.loads(s) - before
            check_ledger(self, s)
        rounds.note(loads=loads, slowest_herd_s=round(slowest, 2))
        # Those who ask for the same are served by the same load.
        self.assertLessEqual(loads, rounds.done * len(VOICES))

    @fault("request herd: 32 clients x all six models", 32 * 32, 32 * 1024)
    def test_requests(self, rounds):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            expected = answers(s)
            waited = []

            def client():
                while rounds.begin():
                    voice = rounds.random.choice(VOICES)
                    start = time.monotonic()
                    if rounds.random.random() < 0.1:
                        self.assertEqual(s.switch(voice, 60)[-1].phase, control.READY)
                    self.assertEqual(s.generate(voice, timeout=60)[1], expected[voice])
                    waited.append(time.monotonic() - start)

            together([client] * self.CLIENTS, timeout=7200)
            check_ledger(self, s)
        rounds.note(median_s=round(statistics.median(waited), 2), slowest_s=round(max(waited), 2))


class GoneTest(unittest.TestCase):
    BOUND = 0.1

    def vanish(self, s, chance, how, delays):
        """A client of its own connection that goes at some moment: how long what it held is held."""
        channel = grpc.insecure_channel(s.address, options=[("grpc.use_local_subchannel_pool", 1)])
        stub = inference_pb2_grpc.InferenceStub(channel)
        stream = stub.Generate(s.request("austen", tokens=900))
        if how == "before":
            pause(chance.uniform(0, 0.005))
        else:
            first_token(stream)
            if how == "after":
                pause(chance.uniform(0, 0.02))
        began = delays.begin(s.process.pid, *children(s.process.pid))
        (channel.close if chance.random() < 0.5 else stream.cancel)()
        gone = time.monotonic()
        wait_for(lambda: quiet(s), 5, f"what it held, gone {how} the first token")
        took = time.monotonic() - gone
        channel.close()
        if took >= self.BOUND:
            self.assertTrue(delays.explain(began, took, self.BOUND), f"gone {how}: {took} s")
        return took

    @fault("client gone before, during, after the first token", 300, 10000)
    def test_gone(self, rounds):
        with Supervisor(device=f"cpu={DEVICE}") as s, MachineDelays() as delays:
            expected = s.generate("austen")[1]
            ways = ["before", "during", "after"]
            took = sorted(self.vanish(s, rounds.random, ways[n % 3], delays) for n in rounds)
            self.assertEqual(s.generate("austen")[1], expected)
        rounds.note(median_ms=round(statistics.median(took) * 1e3, 1),
                    p99_ms=round(took[len(took) * 99 // 100] * 1e3, 1),
                    slowest_ms=round(took[-1] * 1e3, 1),
                    late_with_the_machine=sum(t >= self.BOUND for t in took))


# Opens streams of the model that the second argument names, and reads none beyond its first token.
STALLED = """
import sys
from harness import first_token, grpc, inference, inference_pb2_grpc
streams = []
for _ in range(int(sys.argv[3])):
    channel = grpc.insecure_channel(sys.argv[1], options=[
        ("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)])
    streams.append((channel, inference_pb2_grpc.InferenceStub(channel).Generate(
        inference.GenerateRequest(model=sys.argv[2], text="It was", stop=inference.StopConditions(
            max_tokens=1_000_000, ignore_eos=True)))))
    first_token(streams[-1][1])
print("stalled", flush=True)
sys.stdin.read()
"""


class StalledTest(unittest.TestCase):
    READERS = 100
    NOISE = 2e-4  # by which two medians differ without any reader
    ROUNDS = 20
    CALLS = 200  # a round
    TRIES = 3    # a machine may be busier for one of them for seconds; what readers cost, stays

    def latencies(self, s):
        """Seconds to the end of short answers of another model."""
        seconds = []
        for _ in range(self.CALLS):
            start = time.monotonic()
            s.generate("beta", tokens=4)
            seconds.append(time.monotonic() - start)
        return sorted(seconds)

    def stall(self, s):
        """Readers in a process of their own: their gRPC must not slow down who measures."""
        readers = subprocess.Popen(
            [sys.executable, "-c", STALLED, s.address, "alpha", str(self.READERS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(__file__))))
        self.addCleanup(readers.wait)
        self.addCleanup(readers.communicate)
        self.assertEqual(readers.stdout.readline(), "stalled\n")
        seen = [-1]

        def stands_still():
            pause(0.6)  # over a heartbeat
            before, seen[0] = seen[0], s.model("alpha").tokens
            return before == seen[0]

        wait_for(stands_still, 30, "all of them to be suspended")

    def measure(self, s, calm):
        measured = {"beside": [], "alone": []}
        for _ in range(self.ROUNDS):
            measured["beside"].append(self.latencies(s))
            measured["alone"].append(self.latencies(calm))
        return measured

    def share(self, measured, percent, name):
        return statistics.median(each[self.CALLS * percent // 100] for each in measured[name])

    def excess(self, measured):
        """Seconds by which others' p99 is beyond what it may be."""
        allowed = self.share(measured, 99, "alone") * 1.1 + self.NOISE
        return self.share(measured, 99, "beside") - allowed

    @fault("100 stalled readers", 1, 1)
    def test_stalled(self, rounds):
        # Fake workers, which have as much to say as is wanted. Two supervisors take turns, one of
        # them without such readers: the machine is as busy for the one as for the other.
        both = [fake(step_us=0, env={"SWITCHYARD_FAKE_PADDING": "1000"}) for _ in range(2)]
        with both[0] as s, both[1] as calm:
            self.assertTrue(rounds.begin())
            for each in (s, calm):
                self.latencies(each)
            memory = rss_bytes(s.process.pid)
            self.stall(s)
            for _ in range(self.TRIES):
                measured = self.measure(s, calm)
                if self.excess(measured) < 0:
                    break
            grown = rss_bytes(s.process.pid) - memory

        for name in measured:
            rounds.note(**{f"{name}_ms": [round(self.share(measured, p, name) * 1e3, 2)
                                          for p in (50, 99)]})
        rounds.note(grown_mib=grown >> 20)
        self.assertLess(grown, self.READERS * (5 << 19))  # 1 MiB each, and what gRPC has of it
        self.assertLess(self.excess(measured), 0)


class StalledBesideTest(unittest.TestCase):
    """Readers that stall, and others of the same model: a real worker has only so many places."""
    PLACES = 8    # of the model, and as many stalled readers, and others
    ROUNDS = 3
    CALLS = 8     # a round, of each
    SLOWER = 1.4  # than without them; one place for all others is 1.7 to 3 times as slow
    TRIES = 3     # a machine may be busier for one of the two; what readers cost, stays
    SHAPE = ["--shape", "llama-1b", "--hidden", "1024", "--layers", "1", "--q-heads", "4",
             "--kv-heads", "1", "--head-dim", "64", "--intermediate", "4096",
             "--vocabulary", "1024", "--tied"]

    def supervisor(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        subprocess.run([str(BIN / "switchyard-bench"), "make-model", f"{folder.name}/ck",
                        *self.SHAPE], check=True, stdout=subprocess.DEVNULL)
        pathlib.Path(folder.name, "alpha.textproto").write_text(
            'name: "alpha" checkpoint: "ck" context_length: 8192 '
            f'max_sequences: {self.PLACES}\n')
        return Supervisor(models=folder.name, device="cpu=512MiB")

    def request(self, s):
        """What is said of its prompt alone is more than 1 MiB."""
        return s.request("alpha", ids=inference.TokenIds(ids=[1 + i % 1000 for i in range(5500)]),
                         tokens=500, logprobs=inference.LogprobOptions(prompt_logprobs=20))

    def stall(self, s):
        streams = []
        for _ in range(self.PLACES):
            channel = grpc.insecure_channel(s.address, options=[
                ("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)])
            self.addCleanup(channel.close)
            stub = inference_pb2_grpc.InferenceStub(channel)
            streams.append(stub.Generate(self.request(s)))
        seen = [-1]

        def stand_still():
            pause(0.6)  # over a heartbeat
            before, m = seen[0], s.model("alpha")
            seen[0] = m.tokens
            return before == m.tokens and m.running + m.paused == self.PLACES

        wait_for(stand_still, 60, "all of them to be suspended")
        return streams

    def median(self, s):
        """Seconds that an answer takes where there are as many who ask as there are places."""
        seconds = []

        def client():
            for _ in range(self.CALLS):
                start = time.monotonic()
                s.generate("alpha", tokens=40)
                seconds.append(time.monotonic() - start)

        together([client] * self.PLACES)
        return statistics.median(seconds)

    def measure(self, s, calm):
        measured = {"beside": [], "alone": []}
        for _ in range(self.ROUNDS):
            measured["beside"].append(self.median(s))
            measured["alone"].append(self.median(calm))
        return {name: statistics.median(each) for name, each in measured.items()}

    def take_all_places(self, s):
        """Others run at once, as many as there are places."""
        streams = [s.inference.Generate(s.request("alpha", tokens=6000))
                   for _ in range(self.PLACES)]
        for each in streams:
            first_token(each)

        def all_run():
            m = s.model("alpha")
            return (m.running, m.paused) == (self.PLACES, self.PLACES)

        wait_for(all_run, 5, "all others to run, and those that stall to be paused")
        for each in streams:
            each.cancel()

    @fault("stalled readers of the same model", 1, 1)
    def test_beside(self, rounds):
        with self.supervisor() as s, self.supervisor() as calm:
            self.assertTrue(rounds.begin())
            expected = [i for e in calm.inference.Generate(self.request(calm)) for i in e.ids]
            self.median(calm), self.median(s)
            streams = self.stall(s)
            for _ in range(self.TRIES):
                measured = self.measure(s, calm)
                if measured["beside"] < measured["alone"] * self.SLOWER:
                    break
            rounds.note(**{f"{name}_ms": round(each * 1e3, 1) for name, each in measured.items()})
            m = s.model("alpha")
            self.assertEqual(m.running + m.paused, self.PLACES, "none of them has ended")
            self.assertLess(measured["beside"], measured["alone"] * self.SLOWER)
            self.take_all_places(s)
            # One that reads again has lost nothing.
            self.assertEqual([i for e in streams[0] for i in e.ids], expected)


class DeadlineTest(unittest.TestCase):
    BOUND = 0.1

    def ask(self, s, voice, seconds, expected):
        """A code: what is given little time has more to say than that."""
        tokens = 900 if seconds < 0.1 else 4
        try:
            ids = s.generate(voice, tokens=tokens, timeout=seconds)[1]
        except grpc.RpcError as error:
            return error.code()
        self.assertEqual(ids[:4], expected)
        return Code.OK

    def idle_after(self, s, voice, delays):
        """How long work went on for a request that is over, where nobody else asks this voice."""
        began = delays.begin(s.process.pid, *children(s.process.pid))
        over = time.monotonic()

        def idle():
            m = s.model(voice)
            return not (m.running or m.queued or m.paused or m.kv_blocks_used)

        wait_for(idle, 5, f"{voice} to be idle")
        took = time.monotonic() - over
        if took >= self.BOUND:
            self.assertTrue(delays.explain(began, took, self.BOUND), f"{voice}: {took} s")
        tokens = s.model(voice).tokens
        pause(0.02)  # some steps
        self.assertEqual(s.model(voice).tokens, tokens, "work for nobody")
        return took

    @fault("deadlines of 1 ms to 60 s", 500, 10000)
    def test_deadlines(self, rounds):
        codes = {Code.OK: 0, Code.DEADLINE_EXCEEDED: 0}
        latest = [0]
        with Supervisor(device=f"cpu={DEVICE}") as s, MachineDelays() as delays:
            expected = answers(s, tokens=4)

            def client(voice):
                while rounds.begin():
                    seconds = 10 ** rounds.random.uniform(-3, 1.78)
                    code = self.ask(s, voice, seconds, expected[voice])
                    codes[code] += 1
                    if code != Code.OK:
                        latest[0] = max(latest[0], self.idle_after(s, voice, delays))

            together([lambda v=v: client(v) for v in VOICES], timeout=7200)
            self.assertTrue(quiet(s))
        rounds.note(answered=codes[Code.OK], expired=codes[Code.DEADLINE_EXCEEDED],
                    idle_after_ms=round(latest[0] * 1e3, 1))
        self.assertGreater(codes[Code.DEADLINE_EXCEEDED], rounds.done // 10)

    def test_the_server_keeps_them_itself(self):
        # No client of gRPC's, which would end the call by its own clock.
        with Supervisor(device=f"cpu={DEVICE}") as s:
            s.generate("austen")
            framed = bare_http2.message(s.request("austen", tokens=900).SerializeToString())
            for timeout in ("1m", "30m", "100000u"):
                start = time.monotonic()
                trailers = bare_http2.generate(s.address, framed, grpc_timeout=timeout)
                self.assertIn(b"grpc-status\x014", trailers, timeout)
                self.assertLess(time.monotonic() - start, 5)
                wait_for(lambda: quiet(s), 5, "it to end")


class ConnectionsTest(unittest.TestCase):

    def setUp(self):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        self.most = before[1]

    def storm(self, rounds, s, count, refused=None):
        """Many connections at once; how long it is until there is room for one after them."""
        self.assertTrue(rounds.begin())
        expected = s.generate("austen")[1]
        before = descriptors(s.process.pid)
        host, port = s.address.split(":")
        connections = [socket.create_connection((host, int(port)), timeout=20)
                       for _ in range(count)]
        if refused:
            wait_for(lambda: refused in s.read_log(), what="connections to be refused")
        # Who was there before goes on.
        self.assertEqual(s.generate("austen")[1], expected)
        for each in connections:
            each.close()
        start = time.monotonic()
        wait_for(lambda: s.command_line("models").returncode == 0, 5, "room for a connection")
        took = time.monotonic() - start
        wait_for(lambda: descriptors(s.process.pid) <= before, 5, "its descriptors to be closed")
        rounds.note(connections=count, accepts_again_s=round(took, 2))
        self.assertLess(took, 1)

    @fault("10,000 connections", 1, 1)
    def test_ten_thousand(self, rounds):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            answers(s)  # masters that are still being made would count as descriptors left open
            self.storm(rounds, s, min(10_000, self.most - 200))

    @fault("descriptors exhausted", 1, 1)
    def test_no_descriptors(self, rounds):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            answers(s)
            spare_descriptors(s.process.pid, 60)
            self.storm(rounds, s, 300, refused="refusing a connection")


class OversizeTest(unittest.TestCase):
    MIB = 1 << 20

    @fault("oversize messages, metadata, parameters", 1, 1)
    def test_a_clear_error_before_allocation(self, rounds):
        self.assertTrue(rounds.begin())
        with Supervisor(device=f"cpu={DEVICE}") as s:
            expected = s.generate("austen")[1]
            request = s.request
            many = inference.TokenIds(ids=[1] * (4 * self.MIB // 4))
            cases = {
                "a message of 17 MiB": (request("austen", "x" * 17 * self.MIB),
                                        Code.RESOURCE_EXHAUSTED),
                "a million ids": (request("austen", ids=many), Code.INVALID_ARGUMENT),
                "1 MiB of text": (request("austen", "word " * (self.MIB // 5)),
                                   Code.INVALID_ARGUMENT),
                "a name of 1 MiB": (request("n" * self.MIB), Code.NOT_FOUND),
                "a stop string of 8 MiB": (request("austen", stop={"stop": ["x" * 8 * self.MIB]}),
                                           Code.INVALID_ARGUMENT),
                "a million stop ids": (request("austen", stop={"stop_ids": range(self.MIB)}),
                                       Code.INVALID_ARGUMENT),
                "logprobs": (request("austen", logprobs=inference.LogprobOptions(
                    logprobs=(1 << 32) - 1)), Code.INVALID_ARGUMENT),
            }
            pids = (s.process.pid, s.model("austen").worker_pid)
            for what, (message, code) in cases.items():
                for pid in pids:
                    forget_peak(pid)
                before = [peak_bytes(pid) for pid in pids]
                with self.assertRaises(grpc.RpcError, msg=what) as caught:
                    list(s.inference.Generate(message, timeout=60))
                self.assertEqual(caught.exception.code(), code, what)
                self.assertTrue(0 < len(caught.exception.details()) < 1000, what)
                # The message itself, as bytes and parsed, and nothing that it asked for.
                for pid, was in zip(pids, before):
                    self.assertLess(peak_bytes(pid) - was, 8 * self.MIB + 8 * message.ByteSize(),
                                    what)
            self.oversize_frames(s)
            self.assertEqual(s.generate("austen")[1], expected)

    def oversize_frames(self, s):
        # It says that it is 4 GiB, and ends after a few bytes.
        trailers = bare_http2.generate(s.address, bare_http2.message(b"x" * 10, (1 << 32) - 1))
        self.assertIn(b"grpc-status\x013", trailers)  # INVALID_ARGUMENT
        with grpc.insecure_channel(s.address) as channel:
            call = channel.unary_stream("/switchyard.v1.Inference/Generate")
            for size in (40_000, self.MIB):
                forget_peak(s.process.pid)
                before = peak_bytes(s.process.pid)
                with self.assertRaises(grpc.RpcError) as caught:
                    list(call(b"", timeout=10, metadata=[("x-long", "y" * size)]))
                # gRPC ends the connection over what is far too much: who is still writing may see
                # that, and not the answer.
                if size < self.MIB or caught.exception.code() != Code.UNAVAILABLE:
                    self.assertEqual(caught.exception.code(), Code.RESOURCE_EXHAUSTED)
                    self.assertIn("metadata size exceeds limit", caught.exception.details())
                self.assertLess(peak_bytes(s.process.pid) - before, 8 * self.MIB + 8 * size)
        large = s.request("austen", "x" * 17 * self.MIB)
        codes = together([lambda: code_of(lambda: s.inference.Generate(large, timeout=60))] * 16)
        self.assertEqual(set(codes), {Code.RESOURCE_EXHAUSTED})

    @fault("a message without end", 1, 1)
    def test_without_end(self, rounds):
        self.assertTrue(rounds.begin())
        with Supervisor(device=f"cpu={DEVICE}") as s:
            expected = s.generate("austen")[1]
            sent = bare_http2.pour(s.address, (1 << 32) - 1, 2048 * self.MIB)
            rounds.note(sent_mib=sent // self.MIB, peak_mib=peak_bytes(s.process.pid) // self.MIB)
            self.assertLess(sent, 1024 * self.MIB)
            self.assertLess(peak_bytes(s.process.pid), 1024 * self.MIB)
            self.assertEqual(s.generate("austen")[1], expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
