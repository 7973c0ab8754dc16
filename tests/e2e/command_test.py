"""The `switchyard` command's contract, with the demonstration models."""

import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import unittest

from harness import (BIN, MODELS, SOURCE, VOICES, WORKER, FakeModels, Supervisor, fake, model,
                     wait_for)

MODEL_KEYS = ["name", "family", "state", "default", "pinned", "fixed_bytes", "weight_bytes",
              "resident_bytes", "kv_bytes", "error", "device", "master_bytes", "running",
              "queued", "paused", "worker_pid", "requests", "tokens", "restarts", "idle_s",
              "last_failure", "last_failure_age_s", "prompt_tokens", "joules", "joules_per_token",
              "kv_blocks_used", "kv_blocks_total", "loads", "streamed", "notes"]
README = (SOURCE / "README.md").read_text()
PHASES = {"queued", "draining", "releasing", "loading", "ready", "failed"}


def run(*args):
    return subprocess.run([str(BIN / "switchyard"), *args], capture_output=True, text=True,
                          timeout=30, env=dict(os.environ, SWITCHYARD_WORKER=WORKER))


def unread(terminal):
    """The bytes that a terminal holds for its reader."""
    return struct.unpack("i", fcntl.ioctl(terminal, termios.FIONREAD, b"\0" * 4))[0]


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
            self.assertRegex(result.stderr, r"\Aswitchyard: .*\nTry: switchyard .*--help\n\Z", args)
        self.assertIn('no command "nonsense"', run("nonsense").stderr)

    def test_a_number_is_one(self):
        for args in (["--prompt-ids", ""], ["--prompt-ids", "1,,2"], ["--prompt-ids", "1,2,"],
                     ["x", "--stop-ids", ""], ["x", "--stop-ids", "1,,2"],
                     ["x", "--max-tokens", ""], ["x", "--temperature", ""], ["x", "--top-k", "-1"],
                     ["x", "--seed", "-1"], ["x", "--priority", ""],
                     ["x", "--seed", "18446744073709551616"], ["x", "--logprobs", "", "--json"]):
            result = run("generate", "--address", "127.0.0.1:1", *args)
            self.assertEqual(result.returncode, 2, args)
            self.assertRegex(result.stderr, r"^switchyard: --[a-z-]+: \".*\" is not ", args)

    def test_text_is_utf8(self):
        for name, *args in (("--stop", "generate", "x", "--stop", "fine", "--stop", b"a\xff"),
                            ("PROMPT", "generate", b"a\xff"), ("TEXT", "tokenize", b"a\xff")):
            result = run("--address", "127.0.0.1:1", *args)
            self.assertEqual(result.returncode, 2, args)
            self.assertIn(f"switchyard: {name}: the text is not valid UTF-8 at byte 1\n",
                          result.stderr)

    def test_names_and_addresses(self):
        for command in ("switch", "load", "unload", "pin", "prefetch", "generate"):
            option = ["x", "--model"] if command == "generate" else []
            result = run("--address", "127.0.0.1:1", command, *option, "")
            self.assertEqual(result.returncode, 2, command)
            self.assertIn("a model's name is empty", result.stderr)
            for name in ("a b", b"\xff", "x" * 65, "a\x1b[2J"):
                result = run("--address", "127.0.0.1:1", command, *option, name)
                self.assertEqual(result.returncode, 2, (command, name))
                self.assertNotIn("libprotobuf", result.stderr)
                self.assertNotIn("\x1b", result.stderr)
        for address in ("", "foo", "foo:0", "foo:65536", ":1", "unix:"):
            result = run("status", "--address", address)
            self.assertEqual(result.returncode, 2, address)
            self.assertIn("--address: ", result.stderr)

    def test_logprobs_need_json(self):
        for flags in (["--logprobs", "0"], ["--prompt-logprobs"]):
            result = run("--address", "127.0.0.1:1", "generate", "x", *flags)
            self.assertEqual(result.returncode, 2, flags)
            self.assertIn(f"{flags[0]} needs --json", result.stderr)

    def test_help_tells_everything(self):
        commands = ["generate", "status", "models", "switch", "load", "unload", "prefetch", "pin",
                    "tokenize", "reload", "check"]
        for command in commands:
            text = run(command, "--help").stdout
            self.assertIn("--json", text)
            self.assertIn("--address", text)
            for line in text.splitlines():
                if line.startswith("  -"):
                    self.assertRegex(line, r"^  -\S+( \S+)?( \(required\))? +[A-Z0-9]", command)

    def test_no_connection(self):
        for args in (["status"], ["models", "--json"], ["generate", "x"], ["switch", "x"],
                     ["tokenize", "x"], ["unload", "x"], ["prefetch", "x"], ["pin", "x"],
                     ["load", "x"]):
            result = run("--address", "127.0.0.1:1", *args)
            self.assertEqual(result.returncode, 3, args)
            self.assertIn("switchyard: UNAVAILABLE: ", result.stderr)
        self.assertEqual(run("--address", "unix:/nonexistent", "status").returncode, 3)

    def test_what_keeps_it_from_connecting(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections for it
            for address, why in (
                    ("127.0.0.1:1", r"no supervisor answers at 127\.0\.0\.1:1; is it running\?"),
                    ("unix:/nonexistent", r"no supervisor answers at unix:/nonexistent; is it"),
                    (f"unix:{BIN}/switchyard", r"no supervisor answers at .*; is it"),
                    ("no..name:7411", r"the name of the host in no\.\.name:7411 cannot be resolved"),
                    (f"127.0.0.1:{silent.getsockname()[1]}",
                     r"does not answer within 5 s: what listens there may .* name server\n\Z")):
                result = run("--address", address, "status")
                self.assertEqual(result.returncode, 3, address)
                self.assertRegex(result.stderr, r"\Aswitchyard: UNAVAILABLE: (\S+ )?" + why)

    def test_input_without_an_end(self):
        for command in ("generate", "tokenize"):
            result = subprocess.run(
                f"exec '{BIN}/switchyard' {command} - < /dev/zero", shell=True,
                stderr=subprocess.PIPE, text=True, timeout=30)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertEqual(
                result.stderr, "switchyard: RESOURCE_EXHAUSTED: standard input has more than the "
                               "16 MiB that a request may have, send a shorter one\n")

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
        self.assertRegex(complaint, r"UNAVAILABLE: the connection to 127\.0\.0\.1:\d+ was lost")

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
        described = re.search(r"^\| `check` .*", README, re.MULTILINE).group()
        self.assertEqual([key for key in document["models"][0] if f"`{key}`" not in described], [])
        self.assertEqual(document["devices"][0]["capacity_bytes"], 64 << 20)

    def test_check_before_a_download(self):
        """The profile of six published models, of which only config.json is there."""
        models = SOURCE / "deploy" / "96gb" / "models.d"
        result = run("check", "--models-dir", str(models), "--device", "cpu=96GB",
                     "--host-memory", "400GB", "--other-machine", "--json")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        gigabytes = {m["name"]: m["weight_bytes"] / 1e9 for m in json.loads(result.stdout)["models"]}
        # What deploy/96gb/README.md says; gpt-oss-120b is 65.2 GB as published, with
        # biases in bf16.
        said = {"llama-3.3-70b": 72.7, "qwen3-32b": 34.3, "qwen3-30b-a3b": 31.3,
                "gemma-3-27b": 28.4, "gpt-oss-120b": 65.4, "glm-4.5-air": 57.0}
        self.assertEqual(gigabytes.keys(), said.keys())
        for name, size in said.items():
            self.assertAlmostEqual(gigabytes[name], size, delta=0.1, msg=name)

    def test_check_shows_why_a_model_never_fits(self):
        result = run("check", "--models-dir", str(MODELS), "--device", "cpu=1MiB")
        self.assertEqual(result.returncode, 1)
        self.assertIn("1.00 MiB", result.stdout)

    def test_check_shows_which_pins_do_not_fit_together(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("alpha", "beta"):
                pathlib.Path(folder, f"{name}.textproto").write_text(
                    f'name: "{name}" checkpoint: "{MODELS / "demo/austen"}" pinned: true')
            for size, code in (("64MiB", 0), ("20MiB", 1)):
                result = run("check", "--models-dir", folder, "--device", f"cpu={size}", "--json")
                self.assertEqual(result.returncode, code, result.stdout + result.stderr)
            alpha, beta = json.loads(result.stdout)["models"]
            self.assertTrue(alpha["fits"])
            self.assertIn("beta cannot be pinned: it needs", beta["error"])
            self.assertIn("beside what is pinned already, alpha", beta["error"])

    def test_check_of_a_bad_directory(self):
        result = run("check", "--models-dir", "/nonexistent")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\Aswitchyard: .*/nonexistent")
        result = run("check", "--models-dir", "/nonexistent", "--device", "cpu=68")
        self.assertEqual(result.returncode, 2)
        self.assertRegex(result.stderr, r"\Aswitchyard: --device cpu=68: 68 bytes are less than")


class ContractTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.s = Supervisor().start()

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)

    def test_the_client_of_the_readme(self):
        script = re.search(r"^mkdir -p stubs.*?^END$", README, re.MULTILINE | re.DOTALL).group()
        script = script.replace("127.0.0.1:7411", self.s.address)
        script = script.replace(" python3 ", f" {sys.executable} ")
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(SOURCE / "proto", pathlib.Path(folder, "proto"))
            result = subprocess.run(["sh", "-ec", script], cwd=folder, capture_output=True,
                                    text=True, timeout=60,
                                    env=dict(os.environ, no_proxy="127.0.0.1"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreater(len(result.stdout), 60)

    def test_generate(self):
        document = self.s.command_json("generate", "--model", "austen", "It was", "--max-tokens",
                                       "12", "--temperature", "0", "--logprobs", "2",
                                       "--prompt-logprobs", "--ignore-eos")
        self.assertEqual(list(document), ["model", "text", "token_ids", "logprobs",
                                          "prompt_token_ids", "prompt_logprobs", "prompt_top",
                                          "finish_reason", "error", "usage", "timings",
                                          "seed"])
        self.assertIsNone(document["error"])
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
        self.assertEqual([len(top) for top in document["prompt_top"]], [0] + [2] * (len(prompt) - 1))
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

    def test_a_seed_that_was_drawn_is_told(self):
        flags = ["generate", "--model", "joyce", "Mr Bloom", "--max-tokens", "20",
                 "--temperature", "1"]
        first = self.s.command_json(*flags)
        again = self.s.command_json(*flags, "--seed", str(first["seed"]))
        self.assertEqual(again["token_ids"], first["token_ids"])
        self.assertEqual(again["seed"], first["seed"])

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
        self.assertEqual(list(status), ["devices", "host", "models", "uptime_s", "version",
                                        "default_model", "reload_error", "reload_error_age_s"])
        self.assertEqual(list(status["devices"][0]),
                         ["name", "capacity_bytes", "reserve_bytes", "leased_bytes",
                          "foreign_bytes", "free_bytes", "leases", "utilization_percent", "watts",
                          "celsius", "joules", "processes"])
        # Of a cpu nothing is known, and nothing made up.
        for key in ("utilization_percent", "watts", "celsius", "joules", "processes"):
            self.assertIsNone(status["devices"][0][key], key)
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


class FailureTest(unittest.TestCase):

    def test_the_reason_is_what_the_table_shows(self):
        with fake(FakeModels(["alpha"]), fault="alpha:start:crash") as s:
            wait_for(lambda: s.model("alpha").restarts > 0, what="a failure")
            row = s.command_line("models").stdout.splitlines()[1]
            self.assertIn("ended with signal 6 (Aborted): fake worker: crashing at start", row)
            self.assertIn("crashing at start", s.command_json("models")[0]["last_failure"])

    def broken_off(self, s, end):
        """Exit code, document and complaint of a `generate --json` that `end` breaks off."""
        client = subprocess.Popen(
            [str(BIN / "switchyard"), "--address", s.address, "generate", "--json", "--model",
             "alpha", "--max-tokens", "100000", "--ignore-eos", "x"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        wait_for(lambda: s.model("alpha").tokens > 10, what="some tokens")
        end(s)
        out, complaint = client.communicate(timeout=10)
        return client.returncode, json.loads(out), complaint

    def test_what_had_come_when_the_server_broke_off_is_in_the_document(self):
        with fake(step_us=2000) as s:
            code, document, complaint = self.broken_off(
                s, lambda s: os.kill(s.model("alpha").worker_pid, signal.SIGKILL))
        self.assertEqual(code, 1, complaint)
        self.assertGreater(len(document["token_ids"]), 0)
        self.assertEqual(document["usage"]["completion_tokens"], len(document["token_ids"]))
        self.assertIsNone(document["finish_reason"])
        self.assertEqual(document["error"]["code"], "ABORTED")
        self.assertIn(f"switchyard: ABORTED: {document['error']['message']}".splitlines()[0],
                      complaint)

    def test_what_had_come_when_the_connection_was_lost_is_in_the_document(self):
        def kill(s):
            s.process.kill()
            s.process.wait()
            s.stop = lambda: 0

        with fake(step_us=2000) as s:
            code, document, complaint = self.broken_off(s, kill)
        self.assertEqual(code, 3, complaint)
        self.assertGreater(len(document["token_ids"]), 0)
        self.assertEqual(document["error"]["code"], "UNAVAILABLE")
        self.assertIn("was lost", document["error"]["message"])

    def test_a_request_that_is_too_large_is_told_what_to_do(self):
        with fake() as s:
            result = s.command_line("generate", "-", input="x" * (16 << 20))
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"RESOURCE_EXHAUSTED: .*167\d+ vs\. 16777216\): the request "
                                        r"has more bytes than the supervisor takes, send a shorter")

    def test_what_was_refused_has_no_document(self):
        with fake() as s:
            result = s.command_line("generate", "--json", "--model", "nobody", "x")
        self.assertEqual((result.returncode, result.stdout), (1, ""))


class OutputTest(unittest.TestCase):
    """What cannot be written is not done."""

    @classmethod
    def setUpClass(cls):
        cls.s = fake(step_us=1000).start()

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)

    def run_with_output(self, redirection, *args):
        command = [str(BIN / "switchyard"), "--address", self.s.address, *args]
        return subprocess.run(["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
                              stderr=subprocess.PIPE, text=True, timeout=20)

    def test_a_full_disk_and_a_closed_descriptor(self):
        for redirection in ("> /dev/full", ">&-", ">&- <&-"):
            for args in (["models"], ["status"], ["status", "--json"], ["switch", "alpha"],
                         ["switch", "alpha", "--json"], ["tokenize", "--model", "alpha", "x"],
                         ["pin", "beta", "--off"], ["reload"], ["--help"], ["--version"],
                         ["generate", "--model", "alpha", "x", "--max-tokens", "3", "--json"]):
                result = self.run_with_output(redirection, *args)
                self.assertEqual(result.returncode, 1, (redirection, args, result.stderr))
                self.assertRegex(result.stderr, r"\Aswitchyard: cannot write .*\n\Z", args)

    def test_check_on_a_full_disk(self):
        command = f"'{BIN}/switchyard' check --models-dir '{SOURCE}/models.d' --device cpu=200MB"
        for arguments in ("", " --json"):
            result = subprocess.run(f"{command}{arguments} > /dev/full", shell=True, text=True,
                                    stderr=subprocess.PIPE, timeout=60)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn("the output cannot be written", result.stderr)

    def test_a_stream_stops_where_it_cannot_be_written(self):
        # A million tokens of a millisecond: only what stops at the first one is here in time.
        result = self.run_with_output("> /dev/full", "generate", "--model", "alpha", "x",
                                      "--max-tokens", "1000000", "--ignore-eos")
        self.assertEqual(result.returncode, 1)
        self.assertIn("No space left", result.stderr)
        wait_for(lambda: self.s.model("alpha").running == 0, 2, "the sequence to end")

    def test_a_reader_that_goes(self):
        command = [str(BIN / "switchyard"), "--address", self.s.address, "generate", "--model",
                   "alpha", "x", "--max-tokens", "1000000", "--ignore-eos"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.read(1)
        process.stdout.close()
        self.assertEqual(process.wait(10), -signal.SIGPIPE)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()

    def test_input_that_cannot_be_read(self):
        for redirection, why in (("<&-", "it is closed"), ("< /", "it is a directory")):
            result = self.run_with_output(f"{redirection} > /dev/null", "tokenize", "-")
            self.assertEqual(result.returncode, 1)
            self.assertIn(f"INVALID_ARGUMENT: cannot read standard input: {why}", result.stderr)


class ReloadTest(unittest.TestCase):

    def test_reload(self):
        models = FakeModels(["alpha", "beta"])
        with fake(models) as s:
            self.assertEqual(s.command_json("reload"), {
                "added": [], "changed": [], "removed": [], "devices": [], "default_model": "alpha",
                "default_model_before": "", "waits_for_restart": [], "not_planned": [],
                "tried_again": [], "problems": []})
            models.write("gamma")
            models.remove("beta")
            models.write("alpha", "max_sequences: 2")
            result = s.command_line("reload")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(result.stdout, "added: gamma\nchanged: alpha\nremoved: beta\n")
            pathlib.Path(models.path, "bad.textproto").write_text("nonsense")
            result = s.command_line("reload")
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stderr, r"^switchyard: INVALID_ARGUMENT: .*bad\.textproto")

    def test_a_reload_that_failed_stands_in_status(self):
        models = FakeModels(["alpha"])
        bad = pathlib.Path(models.path, "bad.textproto")
        with fake(models) as s:
            bad.write_text("nonsense")
            s.process.send_signal(signal.SIGHUP)
            status = wait_for(lambda: (r := s.command_json("status"))["reload_error"] and r,
                              what="SIGHUP to be answered")
            self.assertIn("bad.textproto:1:", status["reload_error"])
            self.assertRegex(s.command_line("status").stdout,
                             r"\nthe last reload failed \d+ s ago and changed nothing: .*bad")
            bad.unlink()
            s.command_json("reload")
            self.assertEqual(s.command_json("status")["reload_error"], "")

    def test_the_default_is_told_where_it_changes(self):
        models = FakeModels(["alpha", "beta"])
        models.write("aleph", checkpoint="broken")  # the first, but nobody can ask it
        with fake(models) as s:
            self.assertIn("default model: alpha\n", s.command_line("status").stdout)
            self.assertIn("default model: alpha\n", s.read_log())
            models.remove("alpha")
            told = s.command_line("reload").stdout
            self.assertTrue(told.startswith(
                "removed: alpha\ndefault model: beta, before alpha\ncannot be served: aleph: "), told)
            self.assertIn("config.json: not there", told)
            self.assertIn("removed alpha; default model: beta, before alpha\n", s.read_log())
            models.write("beta", checkpoint="broken")
            s.command_json("reload")
            wait_for(lambda: s.model("beta").state == model.FAILED, what="beta to be failed")
            self.assertIn("default model: beta, which has failed: ",
                          s.command_line("status").stdout)
            result = s.command_line("generate", "x")
            self.assertRegex(result.stderr, "no model is named, and beta, the default .*, takes no "
                                            "requests: .*config.json: not there")

    def test_what_waits_for_a_restart_is_named_and_checked(self):
        with fake(FakeModels(["alpha"]), config="queue_limit: 5") as s:
            config = pathlib.Path(s.directory, "config.textproto")
            config.write_text('queue_limit: 6 default_model: "alpha"')
            waits = "waits for a restart: default_model, queue_limit\n"
            self.assertEqual(s.command_line("reload").stdout, f"nothing has changed\n{waits}")
            self.assertIn(f"nothing has changed; {waits}", s.read_log())
            for text, why in (('request_memory: "1KiB"', "is less than 256.0 KiB"),
                              ('tls_key: "k"', "go together"), ('default_model: "x"', "named x"),
                              ("queue_limit: 99999999", "config.textproto:1:")):
                config.write_text(text)
                refused = s.command_line("reload")
                self.assertEqual(refused.returncode, 1, text)
                self.assertIn(why, refused.stderr)
                self.assertEqual(s.command_json("status")["reload_error"],
                                 refused.stderr.split(": ", 2)[2].rstrip("\n"))
            config.write_text("queue_limit: 5")
            self.assertEqual(s.command_line("reload").stdout, "nothing has changed\n")

    def test_sizes_of_devices(self):
        with fake(FakeModels(["alpha"]), device=None, config='devices: "cpu=24MiB"') as s:
            config = pathlib.Path(s.directory, "config.textproto")
            config.write_text('devices: "cpu=12MiB"')
            result = s.command_line("reload")
            self.assertEqual(result.stdout, "device cpu: 12.0 MiB, before 24.0 MiB\n")
            self.assertIn("models.d read again; device cpu: 12.0 MiB, before 24.0 MiB", s.read_log())
            config.write_text('devices: "cpu=24MiB"')
            self.assertEqual(s.command_json("reload")["devices"], [
                {"name": "cpu", "capacity_bytes": 24 << 20, "capacity_bytes_before": 12 << 20}])


class TerminalTest(unittest.TestCase):

    def test_a_switch_draws_a_bar(self):
        with fake() as s:
            terminal, other_end = os.openpty()
            process = subprocess.Popen([str(BIN / "switchyard"), "--address", s.address, "switch", "beta"],
                                       stdout=other_end)
            self.assertEqual(process.wait(20), 0)
            os.close(other_end)
            drawn = b""
            try:
                while chunk := os.read(terminal, 1 << 16):
                    drawn += chunk
            except OSError:  # Linux says EIO where nobody holds the other end
                pass
            os.close(terminal)
            self.assertRegex(drawn, rb"\rbeta \[={30}\] .*ready")
            self.assertTrue(drawn.endswith(b"\r\n"), drawn)


class InterruptTest(unittest.TestCase):

    def test_ctrl_c_ends_what_waits_for_a_prompt(self):
        with fake() as s:
            terminal, other_end = os.openpty()
            process = subprocess.Popen(
                [str(BIN / "switchyard"), "--address", s.address, "generate", "-"],
                stdin=other_end, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
            os.write(terminal, b"It was\n")
            wait_for(lambda: unread(other_end) == 0, what="it to read")
            os.close(other_end)
            os.write(terminal, b"\x03")
            self.assertIn(process.wait(5), (-signal.SIGINT, 130))
            os.close(terminal)

    def test_ctrl_c_ends_what_connects(self):
        with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and says nothing
            process = subprocess.Popen(
                [str(BIN / "switchyard"), "--address", f"127.0.0.1:{server.getsockname()[1]}",
                 "generate", "x"], stderr=subprocess.PIPE)
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.communicate(timeout=4), (None, b""))
            self.assertEqual(process.returncode, 130)

    def test_ctrl_c_in_text_keeps_what_was_written(self):
        with fake(step_us=2000) as s:
            process = subprocess.Popen(
                [str(BIN / "switchyard"), "--address", s.address, "generate", "--model", "alpha",
                 "x", "--max-tokens", "1000000", "--ignore-eos"], stdout=subprocess.PIPE)
            self.assertTrue(process.stdout.read(1))
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=10)
            self.assertEqual(process.returncode, 130)

    def test_ctrl_c_prints_what_there_is(self):
        with fake(step_us=2000) as s:
            process = subprocess.Popen(
                [str(BIN / "switchyard"), "--address", s.address, "generate", "--model", "alpha",
                 "x", "--max-tokens", "1000000", "--json"], stdout=subprocess.PIPE, text=True)
            wait_for(lambda: s.model("alpha").running == 1, what="the sequence to run")
            wait_for(lambda: s.model("alpha").tokens > 10, what="some tokens")
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=10)
            self.assertEqual(process.returncode, 130)
            document = json.loads(out)
            self.assertEqual(document["finish_reason"], "cancelled")
            self.assertGreater(len(document["token_ids"]), 0)
            wait_for(lambda: s.model("alpha").running == 0, 2, "the sequence to end")


if __name__ == "__main__":
    unittest.main(verbosity=2)
