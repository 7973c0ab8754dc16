"""The demonstration models in real workers. Faults are in chaos_*_test.py."""

import math
import os
import shutil
import signal
import tempfile
import threading
import time
import unittest
from concurrent import futures

from harness import (MODELS, VOICES, Supervisor, alive, code_of, control, descriptors, first_token, grpc,
                     inference, model, rss_bytes, wait_for)

Code = grpc.StatusCode
DEVICE = 64 << 20  # about half of the six


class SharedSupervisor(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.s = Supervisor(device=f"cpu={DEVICE}").start()

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)


class GenerationTest(SharedSupervisor):

    def test_every_voice(self):
        for voice in VOICES:
            text, ids, finish, start = self.s.generate(voice, "It was", 24)
            self.assertEqual(len(ids), 24, voice)
            self.assertTrue(text.strip(), voice)
            self.assertEqual(start.model, voice)
            self.assertEqual(finish.reason, inference.LENGTH)
            self.assertEqual(finish.usage.completion_tokens, 24)

    def test_the_same_after_a_swap_and_in_company(self):
        alone = {v: self.s.generate(v, "In the morning", 40)[1] for v in VOICES}
        again = {v: self.s.generate(v, "In the morning", 40)[1] for v in reversed(VOICES)}
        self.assertEqual(alone, again)
        streams = [(v, self.s.inference.Generate(self.s.request(v, "In the morning", 40)))
                   for v in VOICES for _ in range(2)]
        for voice, stream in streams:
            self.assertEqual([i for e in stream for i in e.ids], alone[voice], voice)

    def test_logprobs(self):
        request = self.s.request("melville", "Call me", 5)
        request.logprobs.logprobs = 3
        request.logprobs.prompt_logprobs = 1
        events = list(self.s.inference.Generate(request, timeout=30))
        start = [e.start for e in events if e.HasField("start")][0]
        self.assertEqual(len(start.prompt_logprobs), len(start.prompt_ids))
        self.assertTrue(math.isnan(start.prompt_logprobs[0].logprob))
        tokens = [t for e in events for t in e.logprobs]
        self.assertEqual(len(tokens), 5)
        self.assertTrue(all(len(t.top) == 3 and t.top[0].id == t.id for t in tokens))

    def test_tokenize_round_trip(self):
        texts = ["plain", "  two  spaces\n\n\ttab", "naïve café 𝔘nicode 🚂🇩🇪", "a\r\nb\x00c",
                 "עברית العربية ไทย 日本語"]
        for voice in VOICES:
            for text in texts:
                ids = self.s.inference.Tokenize(
                    inference.TokenizeRequest(model=voice, text=text, no_special_tokens=True)).ids
                back = self.s.inference.Detokenize(
                    inference.DetokenizeRequest(model=voice, ids=ids)).text
                self.assertEqual(back, text, voice)

    def test_more_to_detokenize_than_any_context_holds(self):
        def ask(count):
            return self.s.inference.Detokenize(
                inference.DetokenizeRequest(model="austen", ids=[100] * count))
        self.assertTrue(ask(1 << 20).text)
        self.assertEqual(code_of(lambda: ask((1 << 20) + 1)), Code.INVALID_ARGUMENT)

    def test_bad_requests(self):
        s, request = self.s, self.s.request
        bad = {
            "empty prompt": request("austen", ""),
            "empty ids": request("austen", ids=inference.TokenIds()),
            "no prompt": inference.GenerateRequest(model="austen"),
            "an id beyond the vocabulary": request("austen", ids=inference.TokenIds(ids=[1 << 30])),
            "a negative id": request("austen", ids=inference.TokenIds(ids=[-1])),
            "beyond the context": request("austen", "word " * 5000),
            "negative temperature": request("austen", temperature=-1),
            "NaN temperature": request("austen", temperature=math.nan),
            "huge temperature": request("austen", temperature=1e9),
            "top_p 0": request("austen", sampling={"top_p": 0.0}),
            "top_p 2": request("austen", sampling={"top_p": 2.0}),
            "min_p 2": request("austen", sampling={"min_p": 2.0}),
            "penalty 0": request("austen", sampling={"repetition_penalty": 0.0}),
            "penalty 1e9": request("austen", sampling={"frequency_penalty": 1e9}),
            "17 stop strings": request("austen", stop={"stop": ["x"] * 17}),
            "empty stop string": request("austen", stop={"stop": [""]}),
            "long stop string": request("austen", stop={"stop": ["x" * 257]}),
            "65 stop ids": request("austen", stop={"stop_ids": range(65)}),
            "100 logprobs": request("austen", logprobs=inference.LogprobOptions(logprobs=100)),
            "priority": request("austen", priority=1000),
        }
        for what, message in bad.items():
            with self.subTest(what):
                code = code_of(lambda: s.inference.Generate(message, timeout=20))
                self.assertEqual(code, Code.INVALID_ARGUMENT)
        self.assertEqual(code_of(lambda: s.generate("nobody")), Code.NOT_FOUND)
        self.assertEqual(code_of(lambda: s.switch("nobody")), Code.NOT_FOUND)
        for stub in (lambda: s.control.Unload(control.UnloadRequest(model="nobody")),
                     lambda: s.control.Prefetch(control.PrefetchRequest(model="nobody")),
                     lambda: s.control.Pin(control.PinRequest(model="nobody", pinned=True)),
                     lambda: s.inference.Tokenize(inference.TokenizeRequest(model="no", text="x"))):
            self.assertEqual(code_of(stub), Code.NOT_FOUND)
        self.assertEqual(len(s.generate("austen")[1]), 8)

    def test_a_bad_request_causes_no_swap(self):
        self.s.switch("austen")
        before = {m.name: m.resident_bytes for m in self.s.status().models}
        for voice in VOICES:
            code_of(lambda: self.s.inference.Generate(self.s.request(voice, "")))
        after = {m.name: m.resident_bytes for m in self.s.status().models}
        self.assertEqual(before, after)

    def test_waiting_for_the_model_is_told_apart(self):
        for tokens in (1, 3, 20):
            self.s.control.Unload(control.UnloadRequest(model="austen"))
            finish = self.s.generate("austen", tokens=tokens)[2]
            self.assertGreater(finish.timings.swap_ms, 0, tokens)
            finish = self.s.generate("austen", tokens=tokens)[2]
            self.assertLess(finish.timings.swap_ms, 1, tokens)

    def test_more_tokens_than_the_context_leaves(self):
        _, ids, finish, start = self.s.generate("whitman", tokens=1_000_000, timeout=120)
        self.assertEqual(finish.reason, inference.LENGTH)
        self.assertEqual(len(ids) + len(start.prompt_ids), 1024)

    def test_cancellation_and_deadlines(self):
        stream = self.s.inference.Generate(self.s.request("austen", tokens=900))
        first_token(stream)
        stream.cancel()
        wait_for(lambda: self.s.model("austen").running == 0, 2, "the sequence to end")
        self.assertEqual(
            code_of(lambda: self.s.inference.Generate(self.s.request("austen"), timeout=-1)),
            Code.DEADLINE_EXCEEDED)
        self.assertEqual(
            code_of(lambda: self.s.inference.Generate(self.s.request("austen", tokens=1000),
                                                      timeout=0.02)), Code.DEADLINE_EXCEEDED)
        wait_for(lambda: self.s.model("austen").running == 0, 2, "the sequence to end")


class ControlTest(SharedSupervisor):

    def test_a_switch_among_six(self):
        for voice in VOICES:
            events = self.s.switch(voice)
            self.assertEqual(events[-1].phase, control.READY)
            self.assertEqual(events[-1].bytes_done, events[-1].bytes_total)
            status = self.s.status()
            self.assertEqual(status.default_model, voice)
            m = next(m for m in status.models if m.name == voice)
            self.assertEqual(m.state, model.RESIDENT)
            self.assertEqual(m.resident_bytes, m.weight_bytes)
            self.assertLessEqual(status.devices[0].leased_bytes, DEVICE)

    def test_the_default_model(self):
        self.s.switch("joyce")
        self.assertEqual(self.s.generate("")[3].model, "joyce")

    def test_a_load_changes_no_default(self):
        self.s.switch("joyce")
        events = list(self.s.control.Load(control.LoadRequest(model="austen"), timeout=30))
        self.assertEqual(events[-1].phase, control.READY)
        self.assertEqual(self.s.status().default_model, "joyce")

    def test_a_closed_stream_does_not_end_the_switch(self):
        self.s.switch("austen")
        for voice in VOICES:
            self.s.control.Switch(control.SwitchRequest(model=voice)).cancel()
        stream = self.s.control.Switch(control.SwitchRequest(model="whitman"))
        next(stream)
        stream.cancel()
        wait_for(lambda: self.s.status().default_model == "whitman", what="the switch")

    def test_pins_hold(self):
        self.s.control.Pin(control.PinRequest(model="joyce", pinned=True))
        self.s.switch("joyce")
        for voice in ("austen", "melville", "whitman", "chesterton"):
            self.s.switch(voice)
            self.assertEqual(self.s.model("joyce").state, model.RESIDENT)
        self.s.control.Pin(control.PinRequest(model="joyce", pinned=False))

    def test_unload_and_prefetch(self):
        self.s.generate("joyce")
        pid = self.s.model("joyce").worker_pid
        self.s.control.Unload(control.UnloadRequest(model="joyce"), timeout=20)
        m = self.s.model("joyce")
        self.assertEqual((m.state, m.master_bytes, m.resident_bytes), (model.COLD, 0, 0))
        self.assertFalse(alive(pid))
        reply = self.s.control.Prefetch(control.PrefetchRequest(model="joyce"), timeout=20)
        self.assertGreater(reply.master_bytes, 0)
        self.assertEqual(self.s.model("joyce").state, model.WARM)
        self.assertEqual(len(self.s.generate("joyce")[1]), 8)

    def test_watching(self):
        stream = self.s.control.WatchStatus(control.WatchStatusRequest(min_interval_ms=1))
        next(stream)
        self.s.switch("chesterton")
        for status in stream:
            self.assertLessEqual(status.devices[0].leased_bytes, DEVICE)
            if status.default_model == "chesterton":
                break
        stream.cancel()

    def test_health(self):
        # Debian has no generated health stubs: the two messages are one field each.
        def check(service):
            call = self.s.channel.unary_unary("/grpc.health.v1.Health/Check")
            name = service.encode()
            return call(b"\x0a" + bytes([len(name)]) + name if name else b"", timeout=5)

        serving = b"\x08\x01"
        for service in ["", "switchyard.v1.Inference", "switchyard.v1.Control",
                        *("model/" + voice for voice in VOICES)]:
            self.assertEqual(check(service), serving, service)
        self.assertEqual(code_of(lambda: check("model/nobody")), Code.NOT_FOUND)
        before = self.s.model("austen").requests
        watch = self.s.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        self.assertEqual(next(watch), serving)
        watch.cancel()
        self.assertEqual(self.s.model("austen").requests, before)

    def test_reflection(self):
        call = self.s.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        services = b"".join(call(iter([b"\x3a\x00"]), timeout=5))  # list_services: ""
        for name in (b"switchyard.v1.Inference", b"switchyard.v1.Control",
                     b"grpc.health.v1.Health"):
            self.assertIn(name, services)
        symbol = b"switchyard.v1.Inference"
        answer = b"".join(call(iter([b"\x22" + bytes([len(symbol)]) + symbol]), timeout=5))
        self.assertIn(b"GenerateRequest", answer)


class LossTest(unittest.TestCase):

    def test_kill_a_worker_then_the_next_request_works(self):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            expected = s.generate("austen")[1]
            for _ in range(3):
                os.kill(s.model("austen").worker_pid, signal.SIGKILL)
                self.assertEqual(s.generate("austen")[1], expected)


class HundredSwitchesTest(unittest.TestCase):

    def test_memory_and_descriptors_stay(self):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            rounds = VOICES * 17

            def switch_all(names):
                for voice in names:
                    self.assertEqual(s.switch(voice)[-1].phase, control.READY)
                    s.generate(voice, tokens=4)

            switch_all(VOICES * 2)  # everything that is allocated once
            pids = {m.name: m.worker_pid for m in s.status().models}
            processes = [s.process.pid, *pids.values()]
            before = {p: (rss_bytes(p), descriptors(p)) for p in processes}
            start = time.monotonic()
            switch_all(rounds)
            print(f"{len(rounds)} switches in {time.monotonic() - start:.2f} s", flush=True)
            self.assertEqual({m.name: m.worker_pid for m in s.status().models}, pids)
            for pid in processes:
                rss, fds = before[pid]
                wait_for(lambda: descriptors(pid) <= fds, 5, f"descriptors of {pid}")
                # The same models are resident as then: what a worker holds follows its lease.
                self.assertLessEqual(rss_bytes(pid), rss + (4 << 20), pid)
            status = s.status()
            self.assertLessEqual(status.devices[0].leased_bytes, DEVICE)
            self.assertLessEqual(status.host.used_bytes, status.host.budget_bytes)


class CrowdTest(unittest.TestCase):
    """Any of three models fits, but not beside another's fixed bytes; and six ask one of them for so
    much, again and again, that its pool does not hold them."""

    def ask(self, s, over):
        while not over.is_set():
            try:
                s.generate("melville", tokens=1000, timeout=60)
            except grpc.RpcError:
                if not over.is_set():
                    raise

    def test_another_model_gets_its_turn(self):
        with tempfile.TemporaryDirectory() as models:
            for name in ["austen", "joyce", "melville"]:
                shutil.copy(MODELS / f"{name}.textproto", models)
            os.symlink(MODELS / "demo", os.path.join(models, "demo"))
            with Supervisor(models=models, device="cpu=17MiB") as s, \
                    futures.ThreadPoolExecutor(6) as pool:
                over = threading.Event()
                crowd = [pool.submit(self.ask, s, over) for _ in range(6)]
                try:
                    for _ in range(2):
                        wait_for(lambda: s.model("melville").paused >= 2, 30, "a crowd")
                        finish = s.generate("austen", tokens=3, timeout=60)[2]
                        self.assertEqual(finish.reason, inference.LENGTH)
                finally:
                    over.set()
                for each in crowd:
                    each.result(60)


class EvictionTest(unittest.TestCase):

    def test_the_weights_of_an_evicted_model_are_given_back(self):
        with Supervisor(device=f"cpu={DEVICE}") as s:
            for voice in VOICES:
                s.switch(voice)
                s.generate(voice, tokens=4)
                model = s.model(voice)
                self.assertGreater(model.resident_bytes, 1 << 20)
                full = rss_bytes(model.worker_pid)
                for other in (v for v in VOICES if v != voice):
                    s.switch(other)
                self.assertEqual(s.model(voice).resident_bytes, 0, voice)
                self.assertLessEqual(rss_bytes(model.worker_pid),
                                     full - model.resident_bytes + (1 << 20), voice)


if __name__ == "__main__":
    unittest.main(verbosity=2)
