"""The `switchyard` command's contract, with the demonstration models."""

import json
import os
import signal
import subprocess
import unittest

from harness import BIN, MODELS, VOICES, WORKER, Supervisor, fake, wait_for

MODEL_KEYS = ["name", "family", "state", "default", "pinned", "fixed_bytes", "weight_bytes",
              "resident_bytes", "kv_bytes", "error"]
PHASES = {"queued", "draining", "releasing", "loading", "ready", "failed"}


def run(*args):
    return subprocess.run([str(BIN / "switchyard"), *args], capture_output=True, text=True,
                          timeout=30, env=dict(os.environ, SWITCHYARD_WORKER=WORKER))


class UsageTest(unittest.TestCase):

    def test_help_and_version(self):
        for args in (["--help"], ["--version"], ["generate", "--help"]):
            self.assertEqual(run(*args).returncode, 0, args)
        self.assertNotIn("chat", run("--help").stdout)

    def test_wrong_usage(self):
        for args in ([], ["nonsense"], ["switch"], ["generate", "--model", "x"],
                     ["generate", "a", "--prompt-ids", "1"], ["generate", "a", "--top-k", "x"],
                     ["status", "--no-such-flag"], ["check"]):
            result = run(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertTrue(result.stderr, args)

    def test_no_connection(self):
        for args in (["status"], ["models", "--json"], ["generate", "x"], ["switch", "x"],
                     ["tokenize", "x"], ["unload", "x"], ["prefetch", "x"], ["pin", "x"],
                     ["load", "x"]):
            result = run("--address", "127.0.0.1:1", *args)
            self.assertEqual(result.returncode, 3, args)
            self.assertIn("switchyard: UNAVAILABLE: ", result.stderr)
        self.assertEqual(run("--address", "unix:/nonexistent", "status").returncode, 3)

    def end_while_generating(self, end, **kwargs):
        """The exit code and complaint of a `generate` whose supervisor ends."""
        with fake(**kwargs) as s:
            client = subprocess.Popen(
                [str(BIN / "switchyard"), "--address", s.address, "generate", "--model", "alpha",
                 "--max-tokens", "100000", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_for(lambda: s.model("alpha").queued + s.model("alpha").running,
                     what="the request")
            end(s)
            return client.wait(10), client.communicate()[1].decode()

    def test_a_connection_that_breaks(self):
        def kill(s):
            s.process.kill()
            s.process.wait()
            s.stop = lambda: 0

        code, complaint = self.end_while_generating(kill, step_us=1000)
        self.assertEqual(code, 3, complaint)
        self.assertIn("UNAVAILABLE", complaint)

    def test_a_server_that_says_it_is_unavailable(self):
        code, complaint = self.end_while_generating(
            lambda s: s.stop(), fault="alpha:grow:hang",
            config="shutdown_timeout { nanos: 100000000 }")
        self.assertEqual(code, 1, complaint)
        self.assertIn("UNAVAILABLE: the supervisor is shutting down", complaint)

    def test_check(self):
        result = run("check", "--models-dir", str(MODELS), "--device", "cpu=64MiB",
                     "--host-memory", "1GiB", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        document = json.loads(result.stdout)
        self.assertEqual([m["name"] for m in document["models"]], VOICES)
        for m in document["models"]:
            self.assertTrue(m["fits"])
            self.assertEqual(m["smallest_bytes"],
                             m["fixed_bytes"] + m["weight_bytes"] + m["kv_smallest_bytes"])
        self.assertEqual(document["devices"][0]["capacity_bytes"], 64 << 20)

    def test_check_shows_why_a_model_never_fits(self):
        result = run("check", "--models-dir", str(MODELS), "--device", "cpu=1MiB")
        self.assertEqual(result.returncode, 1)
        self.assertIn("1.00 MiB", result.stdout)

    def test_check_of_a_bad_directory(self):
        result = run("check", "--models-dir", "/nonexistent")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nonexistent", result.stderr)


class ContractTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.s = Supervisor().start()

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)

    def test_generate(self):
        document = self.s.command_json("generate", "--model", "austen", "It was", "--max-tokens",
                                       "12", "--temperature", "0", "--logprobs", "2",
                                       "--prompt-logprobs", "--ignore-eos")
        self.assertEqual(list(document), ["model", "text", "token_ids", "logprobs",
                                          "prompt_token_ids", "prompt_logprobs", "finish_reason",
                                          "usage", "timings"])
        self.assertEqual(document["model"], "austen")
        self.assertEqual(len(document["token_ids"]), 12)
        self.assertEqual(document["finish_reason"], "length")
        self.assertEqual([e["id"] for e in document["logprobs"]], document["token_ids"])
        for entry in document["logprobs"]:
            self.assertEqual(list(entry), ["id", "logprob", "top"])
            self.assertEqual(len(entry["top"]), 2)
            self.assertAlmostEqual(entry["top"][0]["logprob"], entry["logprob"], places=4)
        prompt = document["prompt_token_ids"]
        self.assertEqual(len(document["prompt_logprobs"]), len(prompt))
        self.assertIsNone(document["prompt_logprobs"][0])
        self.assertTrue(all(p < 0 for p in document["prompt_logprobs"][1:]))
        self.assertEqual(document["usage"], {"prompt_tokens": len(prompt),
                                             "completion_tokens": 12})
        self.assertEqual(list(document["timings"]), ["queue_ms", "swap_ms", "prefill_ms",
                                                     "decode_ms", "tokens_per_second"])

    def test_every_way_to_give_the_prompt(self):
        flags = ["--model", "joyce", "--max-tokens", "8", "--temperature", "0"]
        by_text = self.s.command_json("generate", *flags, "Stately, plump")
        ids = ",".join(map(str, by_text["prompt_token_ids"]))
        by_ids = self.s.command_json("generate", *flags, "--prompt-ids", ids)
        by_input = self.s.command_json("generate", *flags, "-", input="Stately, plump")
        for other in (by_ids, by_input):
            self.assertEqual(other["token_ids"], by_text["token_ids"])
        plain = self.s.command_line("generate", *flags, "Stately, plump")
        self.assertEqual(plain.stdout, by_text["text"])

    def test_stop_string(self):
        document = self.s.command_json("generate", "--model", "austen", "It was", "--max-tokens",
                                       "200", "--temperature", "0", "--stop", "young man")
        self.assertEqual(document["finish_reason"], "stop")
        self.assertTrue(document["text"].endswith("good-natured "), document["text"])

    def test_a_seed_repeats(self):
        args = ["generate", "--model", "melville", "The whale", "--max-tokens", "20", "--seed",
                "7", "--temperature", "1", "--top-k", "50", "--top-p", "0.9", "--min-p", "0.01"]
        self.assertEqual(self.s.command_json(*args)["text"], self.s.command_json(*args)["text"])

    def test_tokenize(self):
        for voice in VOICES:
            document = self.s.command_json("tokenize", "--model", voice, "Héllo, 世界! 🚂  x")
            self.assertEqual(list(document), ["ids", "text"])
            self.assertEqual(document["text"], "Héllo, 世界! 🚂  x", voice)

    def test_models_and_status(self):
        models = self.s.command_json("models")
        self.assertEqual([m["name"] for m in models], VOICES)
        self.assertTrue(all(list(m) == MODEL_KEYS for m in models))
        status = self.s.command_json("status")
        self.assertEqual(list(status), ["devices", "host", "models", "uptime_s", "version"])
        self.assertEqual(list(status["devices"][0]),
                         ["name", "capacity_bytes", "reserve_bytes", "leased_bytes",
                          "foreign_bytes", "free_bytes", "leases"])
        for args in (["models"], ["status"]):
            result = self.s.command_line(*args)
            self.assertEqual(result.returncode, 0)
            self.assertIn("austen", result.stdout)

    def test_switch(self):
        for voice in VOICES:
            result = self.s.command_line("switch", voice, "--json")
            self.assertEqual(result.returncode, 0, result.stderr)
            events = [json.loads(line) for line in result.stdout.splitlines()]
            self.assertEqual(events[-1]["phase"], "ready")
            for event in events:
                self.assertEqual(list(event), ["phase", "bytes_done", "bytes_total", "gb_per_s",
                                               "seconds_left", "queue_position"])
                self.assertIn(event["phase"], PHASES)
            models = {m["name"]: m for m in self.s.command_json("models")}
            self.assertTrue(models[voice]["default"])
            self.assertEqual(models[voice]["state"], "resident")
            self.assertEqual(models[voice]["resident_bytes"], models[voice]["weight_bytes"])

    def test_pin_unload_prefetch_load(self):
        self.s.command_json("pin", "whitman")
        self.assertTrue(self.s.model("whitman").pinned)
        self.s.command_json("pin", "whitman", "--off")
        self.assertFalse(self.s.model("whitman").pinned)
        self.assertEqual(self.s.command_json("unload", "whitman"), {"model": "whitman"})
        self.assertEqual(self.s.command_json("prefetch", "whitman")["model"], "whitman")
        self.assertEqual(self.s.command_line("load", "whitman").returncode, 0)

    def test_the_server_says_no(self):
        for args in (["switch", "nobody"], ["generate", "--model", "nobody", "x"],
                     ["unload", "nobody"], ["tokenize", "--model", "nobody", "x"],
                     ["generate", "--model", "austen", ""],
                     ["generate", "--model", "austen", "x", "--temperature", "-1"]):
            result = self.s.command_line(*args)
            self.assertEqual(result.returncode, 1, args)
            self.assertRegex(result.stderr, r"^switchyard: [A-Z_]+: ")


class InterruptTest(unittest.TestCase):

    def test_ctrl_c_prints_what_there_is(self):
        with fake(step_us=2000) as s:
            process = subprocess.Popen(
                [str(BIN / "switchyard"), "--address", s.address, "generate", "--model", "alpha",
                 "x", "--max-tokens", "1000000", "--json"], stdout=subprocess.PIPE, text=True)
            wait_for(lambda: s.model("alpha").running == 1, what="the sequence to run")
            wait_for(lambda: s.model("alpha").tokens > 10, what="some tokens")
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=10)
            self.assertEqual(process.returncode, 0)
            document = json.loads(out)
            self.assertEqual(document["finish_reason"], "cancelled")
            self.assertGreater(len(document["token_ids"]), 0)
            wait_for(lambda: s.model("alpha").running == 0, 2, "the sequence to end")


if __name__ == "__main__":
    unittest.main(verbosity=2)
