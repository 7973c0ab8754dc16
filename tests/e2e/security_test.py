"""Who may reach a supervisor and how much they may ask of it, and what workers can do: real
processes."""

import ctypes
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

import bare_http2
from harness import (BIN, MODELS, FakeModels, Supervisor, children, code_of, control, fake, grpc,
                     inference, wait_for)

Code = grpc.StatusCode
ROOT_ONLY = unittest.skipUnless(os.geteuid() == 0, "needs root")
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def skip_unless_nobody_can(test, *paths):
    """Becoming another user may be forbidden, and what was built may be in a directory of ours."""
    for path in paths:
        if subprocess.run([*AS_NOBODY, "test", "-r", str(path)], capture_output=True).returncode:
            test.skipTest(f"another user cannot read {path}")


def process_status(pid):
    """/proc/PID/status as a dictionary."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


class WorkerTest(unittest.TestCase):
    """What a worker can do, looked at from outside."""

    @classmethod
    def setUpClass(cls):
        cls.s = Supervisor(env={"SECRET": "hidden", "HOME": "/nonexistent",
                                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
                                "SWITCHYARD_TOKEN_FILE": "/nonexistent"}).start()
        cls.s.generate("austen")
        cls.pid = cls.s.model("austen").worker_pid

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)

    def test_no_new_privileges_and_no_core_files(self):
        self.assertEqual(process_status(self.pid)["NoNewPrivs"], "1")
        limits = pathlib.Path(f"/proc/{self.pid}/limits").read_text()
        self.assertRegex(limits, r"Max core file size +0 +0 ")

    @ROOT_ONLY
    def test_its_environment_is_what_it_needs(self):
        environment = pathlib.Path(f"/proc/{self.pid}/environ").read_text().split("\0")
        self.assertEqual(sorted(filter(None, environment)), sorted(
            f"{name}={value}" for name, value in self.s.environment.items()
            if re.fullmatch(r"PATH|LD_LIBRARY_PATH|(A|UB|T)SAN_OPTIONS|SWITCHYARD_SANDBOX"
                            r"|SWITCHYARD_FAKE_\w+|(CUDA|NVIDIA)_\w+", name)))

    @ROOT_ONLY
    def test_its_descriptors_are_what_it_was_given(self):
        folder = f"/proc/{self.pid}/fd"
        names = {int(n): os.readlink(f"{folder}/{n}") for n in os.listdir(folder)}
        self.assertEqual(names[0], "/dev/null")
        for n in (1, 2, 5):
            self.assertTrue(names[n].startswith("pipe:"), names)
        for n in (3, 4):
            self.assertTrue(names[n].startswith("socket:"), names)
        for n, name in names.items():  # what it opened itself since
            if n > 5:
                self.assertRegex(name, r"^(anon_inode:|/memfd:|.*/models\.d/demo/austen/)")

    def test_it_says_whether_it_is_confined(self):
        # landlock_create_ruleset(2), which tells the version that this kernel has.
        version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
        expected = f"confined to .*, version {version}" if version > 0 else "not confined: "
        self.assertRegex(self.s.read_log(), rf"\[austen\] .* sandbox: {expected}")

    def test_the_sandbox_can_be_left_out(self):
        with Supervisor(args=["--no-sandbox"]) as s:
            s.generate("austen")
            self.assertIn("not confined: it is turned off", s.read_log())
            notes = {m["name"]: m["notes"] for m in s.command_json("models")}
            self.assertIn("not confined: it is turned off (--no-sandbox)", notes["austen"])
        notes = {m["name"]: m["notes"] for m in self.s.command_json("models")}
        self.assertEqual([n for n in notes["austen"] if "confined" in n], [])


@ROOT_ONLY
class OrdinaryUserTest(unittest.TestCase):
    """A supervisor that is not root's, whose workers write to the image cache."""

    def readable(self, path):
        return subprocess.run([*AS_NOBODY, "cat", path], capture_output=True).returncode == 0

    def test_it_serves_and_its_user_cannot_look_into_its_workers(self):
        skip_unless_nobody_can(self, BIN / "switchyard-worker", MODELS / "demo/austen/config.json")
        models = tempfile.mkdtemp(prefix="switchyard-models-")
        self.addCleanup(shutil.rmtree, models)
        os.chmod(models, 0o755)
        pathlib.Path(models, "one.textproto").write_text(
            f'name: "one" checkpoint: "{MODELS}/demo/austen" quantize: FP8')
        s = Supervisor(models=models)
        os.chown(s.directory, 65534, 65534)
        s.command = [*AS_NOBODY, *s.command]
        with s:
            self.assertEqual(len(s.generate("one")[1]), 8)
            wait_for(lambda: list(pathlib.Path(s.directory, "cache").glob("*.image")),
                     what="the image to be kept")
            pid = s.model("one").worker_pid
            self.assertEqual(process_status(pid)["Uid"].split()[0], "65534")
            self.assertTrue(self.readable(f"/proc/{s.process.pid}/environ"))
            self.assertFalse(self.readable(f"/proc/{pid}/environ"))
            self.assertGreater(int(process_status(pid)["VmRSS"].split()[0]), 0)


class CheckpointTest(unittest.TestCase):
    """A checkpoint as Hugging Face's cache keeps it: links to files elsewhere."""

    def test_links_to_files_elsewhere(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-links-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "blobs").mkdir()
        (folder / "snapshots" / "1").mkdir(parents=True)
        for file in (MODELS / "demo" / "austen").iterdir():
            shutil.copy(file, folder / "blobs" / file.name)
            os.symlink(f"../../blobs/{file.name}", folder / "snapshots" / "1" / file.name)
        (folder / "one.textproto").write_text('name: "one" checkpoint: "snapshots/1"')
        with Supervisor(models=folder) as s:
            self.assertEqual(len(s.generate("one")[1]), 8)


class Certificate:
    """A certificate of its own for 127.0.0.1 and localhost, its key, and a token."""

    def __init__(self, add_cleanup):
        self.folder = tempfile.mkdtemp(prefix="switchyard-tls-")
        add_cleanup(shutil.rmtree, self.folder)
        self.path, self.key = self.file("certificate"), self.file("key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "2", "-subj", "/CN=switchyard test", "-addext",
             "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", self.key, "-out", self.path],
            check=True, capture_output=True)
        self.token = os.urandom(16).hex()
        self.token_file = self.write("token", self.token + "\n")

    def file(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o600):
        path = pathlib.Path(self.file(name))
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def args(self):
        return ["--tls-certificate", self.path, "--tls-key", self.key,
                "--token-file", self.token_file]

    def channel(self, address, token=None):
        """To a supervisor that shows this certificate, over TLS."""
        credentials = grpc.ssl_channel_credentials(pathlib.Path(self.path).read_bytes())
        if token is not None:
            credentials = grpc.composite_channel_credentials(
                credentials, grpc.access_token_call_credentials(token))
        return grpc.secure_channel(address, credentials,
                                   options=[("grpc.ssl_target_name_override", "localhost")])


def here(s):
    """The supervisor's address on loopback."""
    return "127.0.0.1:" + s.address.split(":")[1]


def own_address():
    """An address of this machine that is not loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = probe.getsockname()[0]
        return None if address.startswith(("127.", "0.")) else address


def bare_call(channel, method):
    return channel.unary_stream(method)(b"", timeout=10)


class WideAddressTest(unittest.TestCase):

    def setUp(self):
        self.tls = Certificate(self.addCleanup)

    def wide(self, **kwargs):
        s = fake(listen="0.0.0.0:0", args=self.tls.args(), **kwargs)
        s.start()
        self.addCleanup(s.__exit__, None, None, None)
        return s

    def refused(self, *args):
        """What a supervisor that does not start with these says, and its exit code."""
        result = subprocess.run(
            [str(BIN / "switchyard-supervisor"), "--models-dir", FakeModels(["alpha"]).path,
             "--listen", "0.0.0.0:0", "--device", "cpu=24MiB", "--state-dir",
             self.tls.file("state"), *args],
            capture_output=True, text=True, timeout=20,
            env=dict(os.environ, SWITCHYARD_WORKER=str(BIN / "fake-worker")))
        return result.returncode, result.stderr

    def test_it_needs_all_three(self):
        args = self.tls.args()
        self.assertIn("--token-file", self.refused()[1])
        for given in (args[:2], args[2:4], args[4:], args[:4], args[2:], args[:2] + args[4:]):
            code, why = self.refused(*given)
            self.assertEqual(code, 2, given)
            self.assertIn("go together", why)

    def test_secrets_are_not_for_everyone(self):
        for path in (self.tls.key, self.tls.token_file):
            os.chmod(path, 0o644)
            code, why = self.refused(*self.tls.args())
            self.assertEqual(code, 2)
            self.assertIn(f"{path}: every user", why)
            os.chmod(path, 0o600)

    def test_a_key_of_another_certificate(self):
        other = Certificate(self.addCleanup)
        code, why = self.refused("--tls-certificate", self.tls.path, "--tls-key", other.key,
                                 "--token-file", self.tls.token_file)
        self.assertEqual(code, 2, why)
        self.assertIn("is not the key of", why)
        rubbish = self.tls.write("rubbish", "rubbish\n" * 5)
        self.assertIn("no certificate in PEM", self.refused(
            "--tls-certificate", rubbish, *self.tls.args()[2:])[1])
        self.assertIn("no key in PEM", self.refused(
            *self.tls.args()[:2], "--tls-key", rubbish, *self.tls.args()[4:])[1])

    def test_calls_with_the_token_are_served(self):
        s = self.wide()
        with self.tls.channel(here(s), self.tls.token) as channel:
            stub = type(s.inference)(channel)
            self.assertEqual([i for e in stub.Generate(s.request("alpha")) for i in e.ids],
                             list(range(8)))
            self.assertEqual(code_of(lambda: bare_call(channel, "/grpc.health.v1.Health/Check")),
                             Code.OK)
        self.assertNotIn(self.tls.token, s.read_log())

    def test_nothing_is_served_without_it(self):
        s = self.wide()
        wrong = [None, self.tls.token[:-1], self.tls.token + "0", self.tls.token.upper(), "x"]
        for token in wrong:
            with self.tls.channel(here(s), token) as channel:
                for method in ("/switchyard.v1.Inference/ListModels",
                               "/switchyard.v1.Inference/Generate",
                               "/switchyard.v1.Control/GetStatus",
                               "/grpc.health.v1.Health/Check",
                               "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                               "/no.such.Service/Method"):
                    self.assertEqual(code_of(lambda: bare_call(channel, method)),
                                     Code.UNAUTHENTICATED, (token, method))
        log = s.read_log()
        self.assertEqual(log.count("without the right token from ipv4:127.0.0.1:"), 1)
        self.assertNotIn(self.tls.token[:-1], log)

    def test_two_tokens_are_none(self):
        s = self.wide()
        with self.tls.channel(here(s)) as channel:
            call = channel.unary_stream("/switchyard.v1.Inference/ListModels")
            header = ("authorization", f"Bearer {self.tls.token}")
            self.assertEqual(code_of(lambda: call(b"", timeout=10, metadata=[header])), Code.OK)
            self.assertEqual(code_of(lambda: call(b"", timeout=10, metadata=[header, header])),
                             Code.UNAUTHENTICATED)

    def test_it_does_not_speak_in_the_clear(self):
        s = self.wide()
        with grpc.insecure_channel(here(s)) as channel:
            self.assertEqual(
                code_of(lambda: bare_call(channel, "/switchyard.v1.Inference/ListModels")),
                Code.UNAVAILABLE)

    def test_handshakes_that_fail_leave_room(self):
        s = self.wide()
        address = ("127.0.0.1", int(here(s).split(":")[1]))
        for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
            for _ in range(600):  # the limit is 1,024
                with socket.create_connection(address, timeout=5) as connection:
                    connection.sendall(greeting)
        with self.tls.channel(here(s), self.tls.token) as channel:
            models = "/switchyard.v1.Inference/ListModels"
            wait_for(lambda: code_of(lambda: bare_call(channel, models)) == Code.OK,
                     what="room for a connection")
        # One line a second tells of them.
        self.assertIn("warning supervisor: gRPC, ", s.read_log())
        self.assertLess(s.read_log().count("Handshake failed"), 20)

    def test_strangers_lock_nobody_out(self):
        s = self.wide()
        address = ("127.0.0.1", int(here(s).split(":")[1]))
        models = "/switchyard.v1.Inference/ListModels"
        with self.tls.channel(here(s), self.tls.token) as before:
            self.assertEqual(code_of(lambda: bare_call(before, models)), Code.OK)
            # More than there may be of all, and they say nothing.
            strangers = [socket.create_connection(address, timeout=20) for _ in range(1100)]
            try:
                for _ in range(3):
                    with self.tls.channel(here(s), self.tls.token) as channel:
                        self.assertEqual(code_of(lambda: bare_call(channel, models)), Code.OK)
                self.assertEqual(code_of(lambda: bare_call(before, models)), Code.OK)
                self.assertEqual(strangers[0].recv(1), b"")  # others came, and took its place
                strangers[-1].setblocking(False)
                with self.assertRaises(BlockingIOError):
                    strangers[-1].recv(1)
            finally:
                for stranger in strangers:
                    stranger.close()
        self.assertIn("which made no call that brings the token, for a new one", s.read_log())

    def test_the_unix_socket_asks_for_neither(self):
        s = self.wide(config="control: UNIX_ONLY")
        with self.tls.channel(here(s), self.tls.token) as channel:
            self.assertEqual(code_of(lambda: bare_call(channel, "/switchyard.v1.Control/GetStatus")),
                             Code.PERMISSION_DENIED)
        s.address = "unix:" + os.path.join(s.state_dir, "switchyard.sock")
        self.assertIn("devices", s.command_json("status"))

    def test_control_is_for_this_machine_unless_it_is_said(self):
        address = own_address()
        if address is None:
            self.skipTest("this machine has no address but loopback")
        for config, code in (("", Code.PERMISSION_DENIED), ("control: ANYWHERE", Code.OK)):
            s = self.wide(config=config)
            port = s.address.split(":")[1]
            with self.tls.channel(f"{address}:{port}", self.tls.token) as channel:
                status = "/switchyard.v1.Control/GetStatus"
                self.assertEqual(code_of(lambda: bare_call(channel, status)), code)
                models = "/switchyard.v1.Inference/ListModels"
                self.assertEqual(code_of(lambda: bare_call(channel, models)), Code.OK)
            with self.tls.channel(here(s), self.tls.token) as channel:
                self.assertEqual(code_of(lambda: bare_call(channel, status)), Code.OK)


class CommandTest(unittest.TestCase):
    """The `switchyard` command over TLS."""

    @classmethod
    def setUpClass(cls):
        cls.tls = Certificate(cls.addClassCleanup)
        cls.s = fake(listen="0.0.0.0:0", args=cls.tls.args()).start()

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)

    def run_command(self, *args, env=None):
        return subprocess.run(
            [str(BIN / "switchyard"), *([] if "--address" in args else ["--address", here(self.s)]),
             *args], capture_output=True, text=True, timeout=30,
            env=dict(os.environ, **(env or {})))

    def test_flags(self):
        result = self.run_command("--tls-ca", self.tls.path, "models", "--token-file",
                                  self.tls.token_file)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("alpha", result.stdout)

    def test_environment(self):
        env = {"SWITCHYARD_TLS_CA": self.tls.path, "SWITCHYARD_TOKEN_FILE": self.tls.token_file}
        result = self.run_command("generate", "--model", "alpha", "x", "--max-tokens", "3", env=env)
        self.assertEqual(result.returncode, 0, result.stderr)
        # Who brings none is told how.
        result = self.run_command("models", "--tls-ca", self.tls.path)
        self.assertRegex(result.stderr, r"UNAUTHENTICATED: the token is missing .* --token-file FILE")
        # A flag wins over it.
        wrong = self.tls.write("wrong", "0" * 32)
        result = self.run_command("models", "--token-file", wrong, env=env)
        self.assertEqual(result.returncode, 1)
        self.assertIn("the token is missing or wrong", result.stderr)

    def test_a_token_in_the_clear(self):
        result = self.run_command("models", "--token-file", self.tls.token_file)
        self.assertEqual(result.returncode, 2)
        self.assertIn("--tls-ca", result.stderr)

    def test_a_token_of_the_environment_is_for_tls(self):
        with fake() as s:
            for token in (self.tls.token_file, "/nonexistent"):
                result = self.run_command("--address", s.address, "models",
                                          env={"SWITCHYARD_TOKEN_FILE": token})
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn("alpha", result.stdout)

    def test_a_certificate_that_nobody_vouches_for(self):
        result = self.run_command("models", "--tls-ca", Certificate(self.addCleanup).path)
        self.assertEqual(result.returncode, 3)
        self.assertIn("vouch for its certificate", result.stderr)

    def test_in_the_clear_where_tls_is_wanted(self):
        result = self.run_command("models")
        self.assertEqual(result.returncode, 3)
        self.assertIn("is it running?", result.stderr)
        self.assertIn("--tls-ca", result.stderr)

    def test_files_that_hold_no_certificate(self):
        good = pathlib.Path(self.tls.path).read_text()
        files = {"none": "rubbish\n" * 5, "empty": "", "key": pathlib.Path(self.tls.key).read_text(),
                 "cut": good[:len(good) // 2]}
        for name, text in files.items():
            with self.subTest(name):
                path = self.tls.write(name, text)
                result = self.run_command("models", "--tls-ca", path)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertEqual(result.stderr, f"switchyard: INVALID_ARGUMENT: {path}: holds no "
                                                "certificate in PEM\n")
        # Words around them are no matter.
        result = self.run_command("models", "--tls-ca", self.tls.write("words", f"a\n{good}b\n{good}c"),
                                  "--token-file", self.tls.token_file)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_files_that_are_not_there(self):
        result = self.run_command("models", "--tls-ca", "/nonexistent")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nonexistent", result.stderr)


class PeerTest(unittest.TestCase):
    """Who connects to the Unix socket."""

    def ask_as(self, s, user, group, groups=()):
        """The answer to a request by another user, as text."""
        script = (f"import os, sys; os.setgroups({list(groups)}); os.setgid({group});"
                  f"os.setuid({user}); os.execv(sys.argv[1], sys.argv[1:])")
        path = os.path.join(s.state_dir, "switchyard.sock")
        return subprocess.run([sys.executable, "-c", script, str(BIN / "switchyard"), "--address",
                               "unix:" + path, "models"], capture_output=True, text=True,
                              timeout=30)

    @ROOT_ONLY
    def test_strangers_are_refused_and_the_group_is_not(self):
        skip_unless_nobody_can(self, BIN / "switchyard")
        with fake() as s:
            path = os.path.join(s.state_dir, "switchyard.sock")
            refused = self.ask_as(s, 65534, 65534)  # by the state directory
            self.assertEqual(refused.returncode, 3)
            self.assertIn("switchyard.sock: permission denied", refused.stderr)
            # Only the supervisor's own look is left to refuse them.
            os.chmod(s.directory, 0o755)
            os.chmod(s.state_dir, 0o755)
            os.chmod(path, 0o666)
            self.assertNotEqual(self.ask_as(s, 65534, 65534).returncode, 0)
            wait_for(lambda: "from user 65534, process" in s.read_log(), what="it to be told")
            group = os.stat(path).st_gid
            for result in (self.ask_as(s, 65534, group), self.ask_as(s, 65534, 65534, [7, group])):
                self.assertEqual(result.returncode, 0, result.stderr)


class OwnWorkerTest(unittest.TestCase):
    """A worker that asks for what only clients may: itself, by a child, and by one whose parent has
    ended."""

    # What stands in for a worker that somebody has taken over. Landlock forbids none of this.
    WORKER = """#!{python}
import ctypes, os, socket, sys

def ask(who):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect({socket!r})
        answer = b""
        try:
            answer = s.recv(1)
        except ConnectionResetError:
            pass
    with open({out!r} + who + ".new", "w") as f:
        f.write("served" if answer else "refused")
    os.rename({out!r} + who + ".new", {out!r} + who)

if "--serve" in sys.argv:
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # as every worker: PR_SET_NO_NEW_PRIVS
    ask("itself")
    child = os.fork()
    if child == 0:
        os.setsid()
        ask("child")
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                pass
            ask("orphan")
        os._exit(0)
    os.waitpid(child, 0)
os.execv({worker!r}, [{worker!r}] + sys.argv[1:])
"""

    def test_it_is_refused_and_clients_are_not(self):
        folder = tempfile.mkdtemp(prefix="switchyard-taken-")
        self.addCleanup(shutil.rmtree, folder)
        path = pathlib.Path(folder, "worker")
        s = Supervisor(models=FakeModels(["alpha"]).path, worker=path, device="cpu=24MiB")
        unix_socket = os.path.join(s.state_dir, "switchyard.sock")
        path.write_text(self.WORKER.format(python=sys.executable, socket=unix_socket,
                                           out=f"{folder}/", worker=str(BIN / "fake-worker")))
        path.chmod(0o755)
        with s:
            for who in ("itself", "child", "orphan"):
                said = pathlib.Path(folder, who)
                wait_for(said.exists, what=who)
                self.assertEqual(said.read_text(), "refused", who)
            self.assertIn("from a worker, or what it has started: process", s.read_log())
            # Nobody is left unburied, and who is no worker comes in, whatever it may not gain.
            alpha = wait_for(lambda: s.model("alpha").worker_pid, what="alpha")
            wait_for(lambda: children(s.process.pid) == [alpha], what="the orphan to be reaped")
            s.address = "unix:" + unix_socket
            self.assertIn("devices", s.command_json("status"))
            confined = subprocess.run(
                ["setpriv", "--no-new-privs", str(BIN / "switchyard"), "--address", s.address,
                 "models"], capture_output=True, text=True, timeout=30)
            self.assertEqual(confined.returncode, 0, confined.stderr)


class LimitTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.s = fake().start()

    @classmethod
    def tearDownClass(cls):
        cls.s.__exit__(None, None, None)

    def test_what_it_says_of_a_connection(self):
        told = bare_http2.settings(self.s.address)
        self.assertEqual(told[3], 1024)  # streams at once
        self.assertEqual(told[6], 16 << 10)  # bytes of headers

    def test_who_fills_the_port_does_not_lock_out_the_unix_socket(self):
        host, port = self.s.address.split(":")
        connections = [socket.create_connection((host, int(port)), timeout=5) for _ in range(1100)]
        try:
            self.assertNotEqual(self.s.command_line("models").returncode, 0)
            path = os.path.join(self.s.state_dir, "switchyard.sock")
            result = subprocess.run([str(BIN / "switchyard"), "--address", "unix:" + path, "status"],
                                    capture_output=True, text=True, timeout=30)
            self.assertEqual(result.returncode, 0, result.stderr)
        finally:
            for connection in connections:
                connection.close()
        wait_for(lambda: self.s.command_line("models").returncode == 0, what="room")

    def test_calls_of_one_connection(self):
        self.assertTrue(bare_http2.begin_calls(self.s.address, 1024))
        self.assertFalse(bare_http2.begin_calls(self.s.address, 1025))

    def test_pings(self):
        self.assertEqual(bare_http2.ping(self.s.address, 20), b"too_many_pings")
        self.assertIsNone(bare_http2.ping(self.s.address, 3))
        self.assertEqual(len(self.s.generate("alpha")[1]), 8)


class NamesTest(unittest.TestCase):

    def test_a_models_name_is_all_that_a_client_can_pass(self):
        with Supervisor() as s:
            for name in ("../austen", "./austen", "demo/austen", str(MODELS / "demo" / "austen"),
                         "/etc/passwd", "austen.textproto", "austen\0", "file:austen", "austen/"):
                for call in (lambda: s.generate(name), lambda: s.model(name),
                             lambda: s.switch(name),
                             lambda: s.inference.Tokenize(
                                 inference.TokenizeRequest(model=name, text="x")),
                             lambda: s.control.Prefetch(control.PrefetchRequest(model=name))):
                    self.assertEqual(code_of(call), Code.NOT_FOUND, name)


class PromptTest(unittest.TestCase):
    """Prompts and what they bring forth are not written to the log, whatever goes wrong."""

    SECRET = "xyzzyplover"

    def ask_in_every_way(self, s):
        text, ids, _, _ = s.generate("austen", self.SECRET, 12)
        answers = [text]
        s.inference.Tokenize(inference.TokenizeRequest(model="austen", text=self.SECRET))
        bad = [s.request("austen", self.SECRET * 2000, 1),
               s.request("austen", self.SECRET, temperature=-1),
               s.request("austen", self.SECRET, stop={"stop": [self.SECRET * 100]}),
               s.request("nobody", self.SECRET), s.request(self.SECRET, self.SECRET)]
        for request in bad:
            self.assertNotEqual(
                code_of(lambda: s.inference.Generate(request, timeout=20)), Code.OK)
        secret = self.SECRET.encode()
        for payload in (b"\x0a\x06austen\x12" + bytes([len(secret) + 1]) + secret + b"\xff",
                        secret * 3, b"\xff" + secret * 10000):
            call = s.channel.unary_stream("/switchyard.v1.Inference/Generate")
            self.assertNotEqual(code_of(lambda: call(payload, timeout=20)), Code.OK)
        return answers

    def test_not_at_any_level(self):
        with Supervisor(env={"GRPC_VERBOSITY": "debug", "GRPC_TRACE": "all"}) as s:
            answers = self.ask_in_every_way(s)
            stream = s.inference.Generate(s.request("austen", self.SECRET, 100000))
            next(stream)
            os.kill(s.model("austen").worker_pid, 11)
            self.assertNotEqual(code_of(lambda: stream), Code.OK)
            wait_for(lambda: "signal 11" in s.read_log(), what="the worker's end to be told")
            log = s.read_log()
            self.assertIn("info supervisor", log)
            for written in (self.SECRET, self.SECRET.encode().hex(), *answers):
                self.assertNotIn(written, log)
            self.assertNotIn(self.SECRET, s.model("austen").last_failure)


if __name__ == "__main__":
    unittest.main(verbosity=2)
