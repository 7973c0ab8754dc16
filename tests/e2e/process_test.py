"""Processes and sockets: real supervisors, fake workers."""

import fcntl
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time
import unittest

import bare_http2
from frozen import FrozenChild, Unreapable
from harness import (BIN, FakeModels, alive, children, code_of, control, end_of, fake, first_token,
                     grpc, inference, model, rss_bytes, spare_descriptors, wait_for)

Code = grpc.StatusCode


def is_closed(connection):
    """Whether the other side has closed it."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def is_pending(pid, sig):
    """Whether a signal that was sent to a process has not been taken yet."""
    try:
        with open(f"/proc/{pid}/status") as f:
            sets = [int(line.split()[1], 16) for line in f if line.startswith("ShdPnd:")]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False
    return bool(sets) and bool(sets[0] >> (sig - 1) & 1)


class StartTest(unittest.TestCase):

    def run_supervisor(self, *args):
        return subprocess.run([str(BIN / "switchyard-supervisor"), *args], capture_output=True,
                              text=True, timeout=20)

    def test_help_and_version(self):
        self.assertEqual(self.run_supervisor("--help").returncode, 0)
        self.assertEqual(self.run_supervisor("--version").returncode, 0)

    def test_wrong_usage(self):
        models = FakeModels().path
        for args in ([], ["--no-such-flag"], ["--models-dir"],
                     ["--models-dir", models, "--listen", "nonsense"],
                     ["--models-dir", models, "--listen", "0.0.0.0:7411"],
                     ["--models-dir", models, "--device", "cpu=banana"],
                     ["--models-dir", models, "--host-memory", "-1"],
                     ["--models-dir", models, "--device", "cpu=0"],
                     ["--models-dir", models, "--device", "cpu=-5"],
                     ["--models-dir", models, "--device", "no-such-gpu"],
                     ["--models-dir", models, "--device", "cpu", "--device", "cpu"]):
            for mode in ([], ["--check"]):
                result = self.run_supervisor(*mode, *args)
                self.assertEqual(result.returncode, 2, (args, result.stderr))
                self.assertTrue(result.stderr)

    def test_more_memory_than_there_is(self):
        os.environ["SWITCHYARD_WORKER"] = str(BIN / "fake-worker")
        self.addCleanup(os.environ.pop, "SWITCHYARD_WORKER")
        models = ["--models-dir", FakeModels(["alpha"]).path]
        for args in (["--device", "cpu=999TiB"],
                     ["--device", "cpu=24MiB", "--host-memory", "999TiB"]):
            start = self.run_supervisor(*models, *args)
            self.assertEqual(start.returncode, 2, start.stderr)
            self.assertRegex(start.stderr, "999.0 TiB .*is more than the .* of memory")
            check = self.run_supervisor("--check", *models, *args)
            self.assertEqual((check.returncode, check.stderr, check.stdout),
                             (2, start.stderr.replace("switchyard-supervisor", "switchyard"), ""))
            elsewhere = self.run_supervisor("--check", "--other-machine", *models, *args)
            self.assertEqual((elsewhere.returncode, elsewhere.stderr), (0, ""))
        alone = self.run_supervisor("--other-machine", *models)
        self.assertEqual(alone.returncode, 2)
        self.assertIn("--other-machine", alone.stderr)

    def test_a_default_model_that_is_none(self):
        s = fake(config='default_model: "nobody"')
        with self.assertRaisesRegex(AssertionError, "default_model: .* nobody"):
            s.start()
        self.assertEqual(s.process.returncode, 1)
        s.process.stdout.close()

    def test_a_clean_stop_leaves_no_state(self):
        with fake() as s:
            self.assertTrue(os.path.exists(os.path.join(s.state_dir, "lock")))
            self.assertEqual(s.stop(), 0)
            self.assertFalse(os.path.exists(s.state_dir))

    def test_wide_address_says_what_is_missing(self):
        result = self.run_supervisor("--models-dir", FakeModels().path, "--listen", "0.0.0.0:0")
        self.assertIn("TLS", result.stderr)

    def test_no_models_directory(self):
        result = self.run_supervisor("--models-dir", "/nonexistent", "--listen", "127.0.0.1:0")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nonexistent", result.stderr)

    def test_port_zero_leaves_no_directory(self):
        models = FakeModels().path
        process = subprocess.Popen(
            [str(BIN / "switchyard-supervisor"), "--models-dir", models, "--listen",
             "127.0.0.1:0", "--device", "cpu=24MiB"], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
            env=dict(os.environ, SWITCHYARD_WORKER=str(BIN / "fake-worker"),
                     XDG_RUNTIME_DIR=models))
        self.assertTrue(process.stdout.readline().startswith("serving 127.0.0.1:"))
        directory = os.path.join(models, f"switchyard-{process.pid}")
        self.assertTrue(os.path.exists(os.path.join(directory, "switchyard.sock")))
        process.terminate()
        self.assertEqual(process.wait(10), 0)
        process.stdout.close()
        self.assertFalse(os.path.exists(directory))

    def test_two_on_two_ports_live_side_by_side(self):
        models = FakeModels().path
        processes = []
        for _ in range(2):
            processes.append(subprocess.Popen(
                [str(BIN / "switchyard-supervisor"), "--models-dir", models, "--listen",
                 "127.0.0.1:0", "--device", "cpu=24MiB"], stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True,
                env=dict(os.environ, SWITCHYARD_WORKER=str(BIN / "fake-worker"),
                         XDG_RUNTIME_DIR=models)))
        addresses = {p.stdout.readline().split()[1] for p in processes}
        self.assertEqual(len(addresses), 2)
        for address in addresses:
            answer = subprocess.run([str(BIN / "switchyard"), "--address", address, "models"],
                                    capture_output=True, text=True, timeout=20)
            self.assertIn("alpha", answer.stdout, answer.stderr)
        for p in processes:
            p.terminate()
            self.assertEqual(p.wait(10), 0)
            p.stdout.close()

    def test_stopped_before_it_serves_it_leaves_nothing(self):
        s = fake(fault="*:plan:hang")
        starting = subprocess.Popen(s.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    env=s.environment, text=True)
        wait_for(lambda: os.path.exists(os.path.join(s.state_dir, "switchyard.sock")),
                 what="the socket")
        planners = wait_for(lambda: children(starting.pid), what="the plans to begin")
        starting.terminate()
        out, log = starting.communicate(timeout=5)
        self.assertEqual((starting.returncode, out), (0, ""), log)
        self.assertIn("told to stop", log)
        self.assertFalse(os.path.exists(os.path.join(s.state_dir, "switchyard.sock")))
        self.assertFalse(any(map(alive, planners)))

    def test_second_supervisor_is_refused_and_disturbs_nothing(self):
        with fake() as first:
            second = fake(state_dir=first.state_dir)
            with self.assertRaisesRegex(AssertionError, str(first.process.pid)):
                second.start()
            self.assertEqual(second.process.returncode, 1)
            second.process.stdout.close()
            self.assertEqual(len(first.generate("alpha")[1]), 8)

    def test_a_model_that_cannot_be_planned_does_not_stop_the_others(self):
        models = FakeModels(["alpha"])
        models.write("bad", checkpoint="broken")
        with fake(models) as s:
            bad = s.model("bad")
            self.assertIn("config.json", bad.error)
            self.assertEqual(code_of(lambda: s.generate("bad")), Code.FAILED_PRECONDITION)
            self.assertEqual(len(s.generate("alpha")[1]), 8)

    def test_a_model_that_never_fits_shows_the_arithmetic(self):
        with fake(device="cpu=9MiB") as s:
            self.assertEqual(code_of(lambda: s.generate("alpha")), Code.FAILED_PRECONDITION)
            self.assertIn("9.00 MiB", s.model("alpha").error)


class EndTest(unittest.TestCase):

    def test_sigterm_lets_streams_finish(self):
        with fake(step_us=2000) as s:
            stream = s.inference.Generate(s.request("alpha", tokens=300))
            ids = first_token(stream)
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(len(ids) + sum(len(e.ids) for e in stream), 300)
            self.assertEqual(s.process.wait(5), 0)

    def test_new_requests_are_refused_while_draining(self):
        with fake(step_us=2000) as s:
            stream = s.inference.Generate(s.request("alpha", tokens=500))
            first_token(stream)
            s.process.send_signal(signal.SIGTERM)
            wait_for(lambda: code_of(lambda: s.generate("beta")) == Code.UNAVAILABLE,
                     what="the drain to begin")
            stream.cancel()

    def test_grace_ends_and_streams_end_with_a_status(self):
        with fake(step_us=10000, config="shutdown_timeout { nanos: 200000000 }") as s:
            stream = s.inference.Generate(s.request("alpha", tokens=100000))
            first_token(stream)
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(end_of(stream), (Code.ABORTED, True))
            self.assertEqual(s.process.wait(3), 0)

    def test_a_second_signal_cuts_it_short(self):
        with fake(step_us=10000) as s:
            stream = s.inference.Generate(s.request("alpha", tokens=100000))
            first_token(stream)
            s.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "draining" in s.read_log(), what="the first signal")
            s.process.send_signal(signal.SIGINT)
            self.assertEqual(s.process.wait(4), 0)
            self.assertEqual(end_of(stream), (Code.ABORTED, True))

    def test_a_worker_that_cannot_be_reaped_does_not_hold_it_up(self):
        with fake() as s:
            s.generate("alpha")
            pid = s.model("alpha").worker_pid
            try:
                worker = Unreapable(pid)
            except PermissionError as error:
                self.skipTest(f"CAP_SYS_PTRACE is missing: {error}")
            self.addCleanup(worker.release)
            start = time.monotonic()
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(s.process.wait(15), 0)
            self.assertLess(time.monotonic() - start, 2)
            self.assertIn(f"the worker of alpha (pid {pid}) was killed and does not end", s.read_log())

    def hang(self, s):
        """The thread of the event loop, which stands still from now on."""
        try:
            return FrozenChild(s.process.pid)
        except PermissionError as error:
            self.skipTest(f"CAP_SYS_PTRACE is missing: {error}")

    def end_of_frozen(self, s, frozen, timeout):
        status = frozen.exit_status(timeout)
        if status is None:
            s.process.kill()
            frozen.exit_status(10)
        self.assertEqual(status, 1)
        self.assertFalse(os.path.exists(s.state_dir))

    def test_a_loop_that_hangs_ends_in_time(self):
        with fake(config="shutdown_timeout { nanos: 200000000 }") as s:
            frozen = self.hang(s)
            s.process.send_signal(signal.SIGTERM)
            self.end_of_frozen(s, frozen, 5)
            self.assertIn("not everything has ended in time", s.read_log())

    def test_a_third_signal_ends_a_loop_that_hangs_at_once(self):
        with fake() as s:
            frozen = self.hang(s)
            for _ in range(3):
                s.process.send_signal(signal.SIGTERM)
                wait_for(lambda: not is_pending(s.process.pid, signal.SIGTERM),
                         what="the signal to be heard")
            self.end_of_frozen(s, frozen, 5)

    def test_no_orphans(self):
        with fake() as s:
            s.generate("alpha")
            s.generate("beta")
            pids = s.worker_pids()
            self.assertGreaterEqual(len(pids), 2)
            s.process.kill()
            wait_for(lambda: not any(map(alive, pids)), 2, "the workers to end")
            s.process.wait()
            s.stop = lambda: 0

    def test_workers_end_with_the_supervisor(self):
        s = fake()
        with s:
            s.generate("alpha")
            pids = s.worker_pids()
        self.assertFalse(any(map(alive, pids)))


class StandardErrorTest(unittest.TestCase):
    """One that takes nothing: whoever logs does not wait for it."""

    def serve_and_end(self, stderr, take_nothing, take_again):
        with fake(stderr=stderr) as s:
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            take_nothing()
            for name in ("beta", "alpha"):
                s.switch(name, timeout=5)
                self.assertEqual(len(s.generate(name, timeout=5)[1]), 8)
            take_again()
            s.switch("beta", timeout=5)
            take_nothing()
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(s.process.wait(5), 0)

    def test_a_pipe_that_nobody_reads(self):
        read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)

        def fill():
            filling = os.open(f"/proc/self/fd/{write_end}", os.O_WRONLY | os.O_NONBLOCK)
            try:
                while os.write(filling, b"."):
                    pass
            except BlockingIOError:
                pass
            os.close(filling)

        # the start tells the default model, too
        switches = re.compile(rb"(?s)default model: beta\n.*default model: alpha\n")

        def read():
            text = b""
            while not switches.search(text):
                readable, _, _ = select.select([read_end], [], [], 5)
                self.assertTrue(readable, f"no more came after {text[-400:]}")
                text += os.read(read_end, 1 << 16)

        try:
            self.serve_and_end(write_end, fill, read)
        finally:
            os.close(write_end)
            os.close(read_end)

    def test_a_terminal_that_is_stopped(self):
        ours, theirs = pty.openpty()
        # Ctrl-S, Ctrl-Q
        try:
            self.serve_and_end(theirs, lambda: termios.tcflow(theirs, termios.TCOOFF),
                               lambda: termios.tcflow(theirs, termios.TCOON))
        finally:
            os.close(theirs)
            os.close(ours)


class WorkerLossTest(unittest.TestCase):

    def test_killed_while_streaming(self):
        with fake(step_us=5000) as s:
            stream = s.inference.Generate(s.request("alpha", tokens=100000))
            first_token(stream)
            os.kill(s.model("alpha").worker_pid, signal.SIGKILL)
            self.assertEqual(code_of(lambda: stream), Code.ABORTED)
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            self.assertEqual(s.model("alpha").restarts, 1)

    def crash_once(self, phase):
        with fake(fault=f"beta:{phase}:crash", once=True) as s:
            s.generate("alpha")
            code = code_of(lambda: s.generate("beta"))
            self.assertIn(code, (Code.OK, Code.UNAVAILABLE, Code.ABORTED), phase)
            self.assertIn("as told", s.model("beta").last_failure, phase)
            self.assertEqual(len(s.generate("beta")[1]), 8, phase)
            self.assertEqual(len(s.generate("alpha")[1]), 8, phase)

    def test_crash_at_every_phase(self):
        for phase in ("start", "master", "grow", "submit", "token"):
            with self.subTest(phase):
                self.crash_once(phase)

    def test_crash_of_a_victim(self):
        with fake(fault="alpha:shrink:crash", once=True) as s:
            for name in ("alpha", "beta", "gamma", "alpha"):
                self.assertEqual(len(s.generate(name)[1]), 8, name)

    def test_the_last_lines_are_told(self):
        with fake(fault="beta:start:crash") as s:
            stream = s.inference.Generate(s.request("beta"))
            wait_for(lambda: "as told" in s.model("beta").error, what="the reason")
            stream.cancel()
            self.assertEqual(len(s.generate("alpha")[1]), 8)

    def test_a_grow_that_fails_once(self):
        with fake(fault="beta:grow:fail", once=True) as s:
            code_of(lambda: s.generate("beta"))
            self.assertEqual(len(s.generate("beta")[1]), 8)


class ConnectionTest(unittest.TestCase):

    def test_unix_socket(self):
        with fake() as s:
            path = os.path.join(s.state_dir, "switchyard.sock")
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)
            s.address = "unix:" + path
            self.assertEqual(len(s.command_json("models")), 3)

    def test_control_on_the_unix_socket_alone(self):
        with fake(config="control: UNIX_ONLY") as s:
            self.assertEqual(code_of(s.status), Code.PERMISSION_DENIED)
            self.assertEqual(code_of(lambda: s.switch("alpha")), Code.PERMISSION_DENIED)
            self.assertIn(f"--address unix:{s.state_dir}/switchyard.sock\n",
                          s.command_line("status").stderr)
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            s.address = "unix:" + os.path.join(s.state_dir, "switchyard.sock")
            self.assertIn("devices", s.command_json("status"))

    def open_many(self, address, count):
        host, port = address.split(":")
        connections = []
        for _ in range(count):
            c = socket.create_connection((host, int(port)), timeout=5)
            connections.append(c)
        return connections

    def test_a_storm_of_connections(self):
        with fake() as s:
            connections = self.open_many(s.address, 1500)
            # Those beyond the limit are closed at once: reading tells.
            closed = 0
            for c in connections[1100:]:
                c.settimeout(5)
                try:
                    closed += c.recv(1 << 16) == b""
                except ConnectionResetError:
                    closed += 1
            self.assertEqual(closed, 400)
            for c in connections:
                c.close()
            wait_for(lambda: s.command_line("models").returncode == 0, 5, "room for a connection")

    def test_out_of_descriptors(self):
        for spare in (60, 61):  # a connection takes two: once the first is missing, once the second
            with self.subTest(spare=spare):
                self.run_out_of_descriptors(spare)

    def run_out_of_descriptors(self, spare):
        with fake() as s:
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            wait_for(lambda: len(s.worker_pids()) == 3, what="the workers")
            spare_descriptors(s.process.pid, spare)
            connections = self.open_many(s.address, 300)
            wait_for(lambda: sum(map(is_closed, connections)) >= 5, what="connections to be refused")
            self.assertEqual(s.read_log().count("refusing a connection"), 1)
            for c in connections:
                c.close()
            wait_for(lambda: s.command_line("models").returncode == 0, 5, "it to accept again")
            self.assertEqual(len(s.generate("alpha")[1]), 8)

    def test_connections_leave_descriptors_for_workers(self):
        with fake(nofile=160) as s:
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            connections = self.open_many(s.address, 300)
            wait_for(lambda: "refusing connections: 16 are open" in s.read_log(), what="the limit")
            os.kill(s.model("alpha").worker_pid, signal.SIGKILL)
            wait_for(lambda: s.model("alpha").restarts == 1, what="the loss")
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            self.assertNotIn("refusing a connection", s.read_log())
            for c in connections:
                c.close()

    def test_a_worker_for_which_there_are_no_descriptors(self):
        with fake() as s:
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            spare_descriptors(s.process.pid, 0)
            os.kill(s.model("alpha").worker_pid, signal.SIGKILL)
            tries, age = 0, float("inf")

            def tried():
                nonlocal tries, age
                alpha = s.model("alpha")
                self.assertNotEqual(alpha.state, model.FAILED, alpha.error)
                tries += alpha.last_failure_age_s < age
                age = alpha.last_failure_age_s
                return tries > 5  # the first is the loss

            wait_for(tried, 30, "five tries")
            alpha = s.model("alpha")
            self.assertIn("cannot be started for now: socketpair: Too many open files", alpha.error)
            self.assertEqual(alpha.restarts, 1)
            spare_descriptors(s.process.pid, None)
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            self.assertEqual(s.model("alpha").error, "")

    def test_garbage_does_no_harm(self):
        with fake() as s:
            c = self.open_many(s.address, 1)[0]
            c.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(range(256)) * 64)
            c.close()
            self.assertEqual(len(s.generate("alpha")[1]), 8)


class RequestTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.s = fake(step_us=1000)
        cls.s.start()

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)

    def raw(self, method, payload):
        call = self.s.channel.unary_stream(f"/switchyard.v1.Inference/{method}")
        return list(call(payload, timeout=10))

    def test_a_string_that_is_not_utf8(self):
        payload = b"\x0a\x05alpha" + b"\x12\x02\xff\xfe"
        self.assertEqual(code_of(lambda: self.raw("Generate", payload)), Code.INVALID_ARGUMENT)
        self.assertNotIn("libprotobuf", self.s.read_log())

    def test_a_name_without_end(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.s.generate("\x1b" + "x" * 100_000)
        self.assertEqual(caught.exception.code(), Code.NOT_FOUND)
        self.assertIn("named \\x1Bxxx", caught.exception.details())
        self.assertLess(len(caught.exception.details()), 120)

    def test_control_names_its_model(self):
        c = self.s.control
        for call in (lambda: c.Switch(control.SwitchRequest()), lambda: c.Load(control.LoadRequest()),
                     lambda: c.Unload(control.UnloadRequest()),
                     lambda: c.Prefetch(control.PrefetchRequest()),
                     lambda: c.Pin(control.PinRequest(pinned=True))):
            self.assertEqual(code_of(call), Code.INVALID_ARGUMENT)

    def test_bytes_that_are_no_message(self):
        for size in 100, 100_000:  # parsed at once, and in the background
            self.assertEqual(code_of(lambda: self.raw("Generate", b"\xff" * size)),
                             Code.INVALID_ARGUMENT)

    def test_large_requests_are_answered(self):
        large = self.s.request("alpha", "", 1)
        large.ids.ids.extend(range(3_000_000))
        calls = [self.s.inference.Generate(large, timeout=30) for _ in range(4)]
        self.assertEqual(len(self.s.generate("alpha")[1]), 8)
        for call in calls:
            self.assertIn(code_of(lambda call=call: list(call)), (Code.OK, Code.INVALID_ARGUMENT))

    def test_oversize_message(self):
        request = inference.GenerateRequest(model="alpha", text="x" * (17 << 20))
        self.assertEqual(code_of(lambda: self.s.inference.Generate(request, timeout=10)),
                         Code.RESOURCE_EXHAUSTED)

    def test_oversize_metadata(self):
        # On a connection of its own, which gRPC may close for it.
        with grpc.insecure_channel(self.s.address) as channel:
            call = channel.unary_stream("/switchyard.v1.Inference/Generate")
            self.assertNotEqual(
                code_of(lambda: call(b"", timeout=10, metadata=[("x-long", "y" * 40000)])),
                Code.OK)
        self.assertEqual(len(self.s.generate("alpha")[1]), 8)

    def test_unknown_model_and_method(self):
        self.assertEqual(code_of(lambda: self.s.generate("nobody")), Code.NOT_FOUND)
        self.assertEqual(code_of(lambda: self.raw("NoSuchMethod", b"")), Code.UNIMPLEMENTED)

    def test_chat_is_not_there_yet(self):
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.s.inference.Chat(inference.ChatRequest(model="alpha")))
        self.assertEqual(caught.exception.code(), Code.UNIMPLEMENTED)
        self.assertIn("Generate", caught.exception.details())

    def test_deadline(self):
        request = self.s.request("alpha", tokens=100000)
        self.assertEqual(code_of(lambda: self.s.inference.Generate(request, timeout=0.2)),
                         Code.DEADLINE_EXCEEDED)
        wait_for(lambda: self.s.model("alpha").running == 0, 2, "the sequence to end")

    def generate_with_timeout(self, timeout):
        body = self.s.request("alpha", tokens=3).SerializeToString()
        return bare_http2.generate(self.s.address, bare_http2.message(body), grpc_timeout=timeout)

    def test_a_deadline_beyond_all_time_is_none(self):
        # More than a 64-bit count of nanoseconds holds.
        self.assertIn(b"grpc-status\x010", self.generate_with_timeout("99999999H"))

    def test_a_deadline_that_has_passed_when_it_arrives(self):
        self.assertIn(b"grpc-status\x014", self.generate_with_timeout("1n"))  # DEADLINE_EXCEEDED
        wait_for(lambda: self.s.model("alpha").running == 0, 2, "the sequence to end")

    def test_cancellation(self):
        stream = self.s.inference.Generate(self.s.request("alpha", tokens=100000))
        first_token(stream)
        stream.cancel()
        wait_for(lambda: self.s.model("alpha").running == 0, 2, "the sequence to end")

    def test_many_streams_lose_nothing(self):
        streams = [self.s.inference.Generate(self.s.request("alpha", tokens=200))
                   for _ in range(32)]
        for stream in streams:
            events = list(stream)
            self.assertEqual([i for e in events for i in e.ids], list(range(200)))
            self.assertEqual("".join(e.text for e in events),
                             "".join(f"t{i} " for i in range(200)))
            self.assertTrue(events[-1].HasField("finish"))

    def test_watch_status(self):
        stream = self.s.control.WatchStatus(control.WatchStatusRequest(min_interval_ms=10))
        self.assertEqual(len(next(stream).models), 3)
        self.s.switch("gamma")
        for status in stream:
            if status.default_model == "gamma":
                break
        stream.cancel()


class FullQueueTest(unittest.TestCase):

    def test_retry_info(self):
        from google.rpc import error_details_pb2, status_pb2
        with fake(config="queue_limit: 1", fault="alpha:grow:slow", step_us=1000) as s:
            streams = [s.inference.Generate(s.request("alpha")) for _ in range(20)]
            refused = 0
            for stream in streams:
                try:
                    list(stream)
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), Code.RESOURCE_EXHAUSTED)
                    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
                    status = status_pb2.Status.FromString(details)
                    retry = error_details_pb2.RetryInfo()
                    self.assertTrue(status.details[0].Unpack(retry))
                    self.assertGreater(retry.retry_delay.ToNanoseconds(), 0)
                    refused += 1
            self.assertGreater(refused, 0)


class SlowReaderTest(unittest.TestCase):

    def slow_stream(self, s, tokens):
        """A client that takes 64 KiB and then no more until it is read."""
        self.channel = grpc.insecure_channel(s.address, options=[("grpc.http2.bdp_probe", 0)])
        self.addCleanup(self.channel.close)
        stub = type(s.inference)(self.channel)
        stream = stub.Generate(s.request("alpha", tokens=tokens))
        return stream, first_token(stream)

    def wait_until_suspended(self, s):
        seen = [-1]

        def stands_still():  # over a heartbeat or two
            before, seen[0] = seen[0], s.model("alpha").tokens
            threading.Event().wait(0.6)
            return before == seen[0] and before > 0

        wait_for(stands_still, 20, "the sequence to be suspended")
        return seen[0]

    def test_it_is_suspended_and_loses_nothing(self):
        with fake(step_us=0, env={"SWITCHYARD_FAKE_PADDING": "1000"}) as s:
            stream, ids = self.slow_stream(s, 5000)
            # 1 MiB here, and what was on its way.
            self.assertLess(self.wait_until_suspended(s), 4000)
            ids += [i for e in stream for i in e.ids]
            self.assertEqual(ids, list(range(5000)))

    def test_it_holds_up_nobody(self):
        with fake(step_us=0, env={"SWITCHYARD_FAKE_PADDING": "1000"}) as s:
            stream, _ = self.slow_stream(s, 2_000_000)
            for _ in range(20):
                self.assertEqual(len(s.generate("alpha", tokens=50)[1]), 50)
            self.wait_until_suspended(s)
            before = rss_bytes(s.process.pid)
            self.assertEqual(len(s.generate("alpha", tokens=50)[1]), 50)
            self.assertLess(rss_bytes(s.process.pid), before + (4 << 20))
            stream.cancel()
            wait_for(lambda: s.model("alpha").running == 0, 5, "the sequence to end")


class ReloadTest(unittest.TestCase):

    def test_add_and_remove(self):
        models = FakeModels()
        with fake(models) as s:
            models.write("delta")
            models.remove("gamma")
            reply = s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=20)
            self.assertEqual((list(reply.added), list(reply.removed)), (["delta"], ["gamma"]))
            self.assertIn("models.d read again; added delta; removed gamma", s.read_log())
            self.assertEqual(len(s.generate("delta")[1]), 8)
            self.assertEqual(code_of(lambda: s.generate("gamma")), Code.NOT_FOUND)

    def test_a_plan_that_hangs_does_not_hold_up_the_end(self):
        models = FakeModels(["alpha"])
        with fake(models, fault="delta:plan:hang") as s:
            s.generate("alpha")
            workers = set(children(s.process.pid))
            models.write("delta")
            s.process.send_signal(signal.SIGHUP)
            planners = wait_for(lambda: set(children(s.process.pid)) - workers,
                                what="the plan to begin")
            self.assertEqual(s.stop(timeout=5), 0)
            self.assertFalse(any(map(alive, planners)))
            self.assertFalse(os.path.exists(os.path.join(s.state_dir, "switchyard.sock")))

    def test_bad_configuration_changes_nothing(self):
        models = FakeModels()
        with fake(models) as s:
            with open(os.path.join(models.path, "zeta.textproto"), "w") as f:
                f.write('name: "zeta" chekpoint: "zeta"')
            self.assertEqual(
                code_of(lambda: s.control.ReloadConfig(control.ReloadConfigRequest())),
                Code.INVALID_ARGUMENT)
            s.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "not changed" in s.read_log(), what="SIGHUP to be answered")
            self.assertEqual(len(s.status().models), 3)

    def test_a_device_too_small_for_its_pins_changes_nothing(self):
        with fake(FakeModels(["alpha", "beta"]), device=None,
                  config='devices: "cpu=24MiB"') as s:
            config = pathlib.Path(s.directory, "config.textproto")
            s.control.Pin(control.PinRequest(model="alpha", pinned=True))
            wait_for(lambda: s.model("alpha").state == model.RESIDENT, what="the pin")
            worker = s.model("alpha").worker_pid
            config.write_text('devices: "cpu=8MiB"')
            with self.assertRaises(grpc.RpcError) as caught:
                s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=20)
            self.assertEqual(caught.exception.code(), Code.FAILED_PRECONDITION)
            self.assertRegex(caught.exception.details(), "cpu cannot be .* alpha .* but cpu has 8")
            s.process.send_signal(signal.SIGHUP)
            wait_for(lambda: s.read_log().count("not changed") == 2, what="SIGHUP to be answered")
            self.assertEqual(s.status().devices[0].capacity_bytes, 24 << 20)
            self.assertEqual(len(s.generate("alpha")[1]), 8)
            self.assertEqual((s.model("alpha").worker_pid, s.model("alpha").pinned), (worker, True))
            config.write_text('devices: "cpu=12MiB"')  # enough for the pin alone
            s.control.ReloadConfig(control.ReloadConfigRequest(), timeout=20)
            self.assertEqual(s.status().devices[0].capacity_bytes, 12 << 20)
            self.assertEqual(s.model("alpha").worker_pid, worker)
            self.assertEqual(code_of(lambda: s.generate("beta")), Code.RESOURCE_EXHAUSTED)

    def test_two_entries_of_one_name_change_nothing(self):
        models = FakeModels()
        with fake(models) as s:
            shutil.copy(os.path.join(models.path, "alpha.textproto"),
                        os.path.join(models.path, "again.textproto"))
            with self.assertRaises(grpc.RpcError) as caught:
                s.control.ReloadConfig(control.ReloadConfigRequest())
            self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
            self.assertIn("again.textproto", caught.exception.details())
            self.assertIn("alpha.textproto", caught.exception.details())
            self.assertEqual(len(s.status().models), 3)
            self.assertEqual(len(s.generate("alpha")[1]), 8)


class GpuTest(unittest.TestCase):
    """A stand-in for the driver's library, and workers that need no GPU."""

    def start(self, **env):
        library = BIN.parent / "tests/supervisor/io/libfake_nvml.so"
        if not library.exists():
            self.skipTest("the stand-in is not built")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.symlink(library, os.path.join(folder.name, "libnvidia-ml.so.1"))
        s = fake(device="GPU-fake", env=dict(env, LD_LIBRARY_PATH=folder.name, FAKE_NVML_USED="0"))
        try:
            s.start()
        except AssertionError as error:
            s.process.stdout.close()
            if "no CUDA kernels" in str(error):
                self.skipTest("this build has no CUDA kernels")
            raise
        self.addCleanup(s.__exit__, None, None, None)
        return s

    def test_energy_reaches_the_models_that_caused_it(self):
        # No counter: power over time, which goes on by itself.
        s = self.start(FAKE_NVML_REFUSES="energy,", FAKE_NVML_PROCESSES="1")
        wait_for(lambda: s.status().devices[0].HasField("watts"), what="the first sample")
        s.generate("alpha")
        models = wait_for(lambda: (m := {m.name: m for m in s.status().models})["alpha"].joules
                          and m, what="alpha's energy")
        self.assertEqual(models["beta"].joules, 0)
        self.assertTrue(models["beta"].HasField("joules"))
        self.assertFalse(models["beta"].HasField("joules_per_token"))
        self.assertAlmostEqual(models["alpha"].joules_per_token * models["alpha"].tokens,
                               models["alpha"].joules)
        document = s.command_json("status")
        device = document["devices"][0]
        self.assertEqual((device["watts"], device["celsius"], device["utilization_percent"]),
                         (412.5, 54, 62))
        self.assertEqual(device["processes"], [{"pid": 100, "bytes": 100 << 20, "model": ""}])
        # Of a model that has all of it the shares add up to the same but for their rounding.
        self.assertGreaterEqual(device["joules"] + 1e-6, document["models"][0]["joules"])
        text = s.command_line("status").stdout
        self.assertRegex(text, r"62% busy, 412 W, 54 C, \d.* since start")
        self.assertRegex(text, r"100 +100.0 MiB +\(not ours\)")

    def test_a_driver_that_says_nothing(self):
        s = self.start(FAKE_NVML_REFUSES="utilization,power,temperature,energy,processes,")
        self.assertEqual(len(s.generate("alpha")[1]), 8)
        document = s.command_json("status")
        for key in ("watts", "celsius", "utilization_percent", "joules", "processes"):
            self.assertIsNone(document["devices"][0][key], key)
        self.assertIsNone(document["models"][0]["joules"])

    def test_a_driver_that_does_not_open_says_why(self):
        with self.assertRaisesRegex(AssertionError, "Driver/library version mismatch"):
            self.start(FAKE_NVML_INIT="18")


if __name__ == "__main__":
    unittest.main(verbosity=2)
