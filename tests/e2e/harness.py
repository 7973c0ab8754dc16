"""Starts real supervisors and talks to them with stubs that are generated from the protos here.

Nothing sleeps: whoever waits polls a condition with a deadline, or blocks on an event.

Environment: SWITCHYARD_BIN_DIR (where the programs are), SWITCHYARD_SOURCE_DIR, and
SWITCHYARD_E2E_WORKER (a worker from elsewhere).
"""

import atexit
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(os.environ.get("SWITCHYARD_SOURCE_DIR",
                                     pathlib.Path(__file__).resolve().parents[2]))
BIN = pathlib.Path(os.environ.get("SWITCHYARD_BIN_DIR", SOURCE / "build/dev/bin"))
# Another build's worker can be tried without relinking the supervisor beside it.
WORKER = os.environ.get("SWITCHYARD_E2E_WORKER", str(BIN / "switchyard-worker"))
MODELS = SOURCE / "models.d"
VOICES = ["austen", "chesterton", "joyce", "melville", "shakespeare", "whitman"]


def _generate_stubs():
    out = tempfile.mkdtemp(prefix="switchyard-stubs-")
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    protos = [str(p) for p in sorted((SOURCE / "proto").rglob("*.proto"))]
    subprocess.run(
        ["protoc", f"-I{SOURCE / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}",
         f"--plugin=protoc-gen-grpc_python={shutil.which('grpc_python_plugin')}", *protos],
        check=True)
    sys.path.insert(0, out)


_generate_stubs()

import grpc  # noqa: E402
from switchyard.v1 import control_pb2 as control  # noqa: E402
from switchyard.v1 import control_pb2_grpc  # noqa: E402
from switchyard.v1 import inference_pb2 as inference  # noqa: E402
from switchyard.v1 import inference_pb2_grpc  # noqa: E402
from switchyard.v1 import model_pb2 as model  # noqa: E402


def wait_for(condition, timeout=10, what="a condition"):
    """Polls until `condition()` is true and returns its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}")
        threading.Event().wait(0.01)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or read
        return False


def children(pid):
    pids = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            pids += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except FileNotFoundError:  # a thread that has ended
            pass
    return pids


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def spare_descriptors(pid, count):
    """Leaves a process so many descriptors more than it has, or with None as many as it may have."""
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    soft = most if count is None else descriptors(pid) + count
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, most))


def rss_bytes(pid):
    """Private resident memory: masters are shared, and counted by the ledger."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def peak_bytes(pid):
    """The most resident memory that a process has had, since `forget_peak` if that was asked."""
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def forget_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


class Supervisor:
    """A supervisor process and a connection to it. A context manager."""

    def __init__(self, models=MODELS, worker=None, device="cpu=64MiB", host="256MiB", config="",
                 env=None, args=(), state_dir=None, listen="127.0.0.1:0", nofile=None,
                 stderr=None):
        self.directory = tempfile.mkdtemp(prefix="switchyard-e2e-")
        atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        self.state_dir = state_dir or os.path.join(self.directory, "state")
        self.environment = dict(os.environ, SWITCHYARD_WORKER=str(worker or WORKER))
        self.environment.update(env or {})
        command = [str(BIN / "switchyard-supervisor"), "--models-dir", str(models),
                   "--listen", listen, "--host-memory", host,
                   "--state-dir", self.state_dir,
                   "--cache-dir", os.path.join(self.directory, "cache"), *args]
        if device:
            command += ["--device", device]
        if config:
            path = os.path.join(self.directory, "config.textproto")
            pathlib.Path(path).write_text(config)
            command += ["--config", path]
        self.command = command
        self.nofile = nofile
        self.stderr = stderr  # None: a file, for read_log
        self.pass_fds = ()
        self.process = None
        self.channel = None

    def start(self):
        command = self.command
        if self.nofile:  # the hard limit: the soft one is raised
            command = ["prlimit", f"--nofile={self.nofile}:{self.nofile}", *command]
        self.log = open(os.path.join(self.directory, "log"), "w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE,
                                        stderr=self.stderr or self.log, env=self.environment,
                                        text=True, pass_fds=self.pass_fds)
        line = self.process.stdout.readline()
        if not line.startswith("serving "):
            self.process.wait(10)
            raise AssertionError(f"it does not serve: {self.read_log()}")
        self.address = line.split()[1]
        self.channel = grpc.insecure_channel(
            self.address, options=[("grpc.enable_http_proxy", 0),
                                   ("grpc.max_receive_message_length", -1)])
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)
        self.control = control_pb2_grpc.ControlStub(self.channel)
        return self

    def read_log(self):
        self.log.flush()
        with open(self.log.name) as f:
            return f.read()

    def stop(self, timeout=15):
        """SIGTERM; returns the exit status."""
        if self.channel:
            self.channel.close()
            self.channel = None
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout) if self.process else None

    def kill(self):
        """SIGKILL, and what it leaves."""
        self.process.kill()
        self.process.wait()
        if self.channel:
            self.channel.close()
            self.channel = None
        self.process.stdout.close()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            status = self.stop()
            if kind is None:
                assert status == 0, f"exit status {status}: {self.read_log()}"
            else:
                sys.stderr.write(self.read_log()[-4000:])
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            self.log.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    # What tests ask for most.

    def status(self):
        return self.control.GetStatus(control.GetStatusRequest(), timeout=10)

    def model(self, name):
        return self.inference.GetModel(inference.GetModelRequest(model=name), timeout=10)

    def serving(self, name):
        """What grpc.health.v1 says of a model; Debian has no generated stubs for it."""
        service = f"model/{name}".encode()
        call = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        answer = call(b"\x0a" + bytes([len(service)]) + service, timeout=5)
        return {b"\x08\x01": True, b"\x08\x02": False}[answer]

    def worker_pids(self):
        return [m.worker_pid for m in self.status().models if m.worker_pid]

    def request(self, name, text="It was", tokens=8, **kwargs):
        sampling = inference.Sampling(temperature=kwargs.pop("temperature", 0),
                                      **kwargs.pop("sampling", {}))
        stop = inference.StopConditions(max_tokens=tokens, ignore_eos=True,
                                        **kwargs.pop("stop", {}))
        if "ids" not in kwargs:
            kwargs["text"] = text
        return inference.GenerateRequest(model=name, sampling=sampling, stop=stop, **kwargs)

    def generate(self, name, text="It was", tokens=8, timeout=30, **kwargs):
        """All of a generation: (text, ids, finish, start)."""
        events = list(self.inference.Generate(self.request(name, text, tokens, **kwargs),
                                              timeout=timeout))
        starts = [e.start for e in events if e.HasField("start")]
        return ("".join(e.text for e in events), [i for e in events for i in e.ids],
                events[-1].finish, starts[0])

    def switch(self, name, timeout=30):
        return list(self.control.Switch(control.SwitchRequest(model=name), timeout=timeout))

    def command_line(self, *args, input=None, timeout=60):
        """The `switchyard` command against this supervisor: a CompletedProcess."""
        return subprocess.run([str(BIN / "switchyard"), "--address", self.address, *args],
                              capture_output=True, text=True, timeout=timeout, input=input)

    def command_json(self, *args, **kwargs):
        result = self.command_line(*args, "--json", **kwargs)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)


class FakeModels:
    """A models directory for the fake worker."""

    def __init__(self, names=("alpha", "beta", "gamma"), extra=""):
        self.path = tempfile.mkdtemp(prefix="switchyard-models-")
        atexit.register(shutil.rmtree, self.path, ignore_errors=True)
        for name in names:
            self.write(name, extra)

    def write(self, name, extra="", checkpoint=None):
        os.makedirs(os.path.join(self.path, checkpoint or name), exist_ok=True)
        pathlib.Path(self.path, f"{name}.textproto").write_text(
            f'name: "{name}" checkpoint: "{checkpoint or name}" {extra}\n')

    def remove(self, name):
        os.unlink(os.path.join(self.path, f"{name}.textproto"))


def fake(models=None, device="cpu=24MiB", fault="", once=False, step_us=None, **kwargs):
    """A supervisor with fake workers: a model needs 10 MiB, so that 24 MiB hold two."""
    env = kwargs.pop("env", {})
    if fault:
        env["SWITCHYARD_FAKE_FAULT"] = fault
    if once:
        handle, path = tempfile.mkstemp(prefix="switchyard-once-")
        os.close(handle)
        atexit.register(lambda: os.path.exists(path) and os.unlink(path))
        env["SWITCHYARD_FAKE_ONCE"] = path
    if step_us is not None:
        env["SWITCHYARD_FAKE_STEP_US"] = str(step_us)
    return Supervisor(models=(models or FakeModels()).path, worker=BIN / "fake-worker",
                      device=device, env=env, **kwargs)


def first_token(stream):
    """Reads to the first event with a token (events that say that the request waits come before
    it), and returns its ids."""
    for event in stream:
        if event.ids:
            return list(event.ids)
    raise AssertionError("the stream ended without a token")


def end_of(call):
    """How a stream ends: its code, and whether the server said so. A status of the server's has
    details, one that gRPC makes of a torn connection has none; OK is only the server's."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code(), any(key == "grpc-status-details-bin"
                                 for key, _ in error.trailing_metadata() or ())
    return grpc.StatusCode.OK, True


def code_of(call):
    """The status code that a call fails with."""
    try:
        result = call()
        if hasattr(result, "__iter__"):
            list(result)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
