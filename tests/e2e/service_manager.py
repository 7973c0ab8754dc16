"""A service manager's end of NOTIFY_SOCKET, with a store of descriptors as systemd's."""

import os
import shutil
import socket
import sys
import tempfile
import time

# Starts a program as a service manager does that hands over descriptors: from 3 on, and with the
# pid that only the process itself knows beforehand. Copies first: a source may have a target's
# number.
_HAND_OVER = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in sys.argv[1].split(",")]
for target, fd in enumerate(fds, 3):
    os.dup2(fd, target)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:

    def __init__(self, **environment):
        self.directory = tempfile.mkdtemp(prefix="switchyard-notify-")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = os.path.join(self.directory, "notify")
        self.socket.bind(path)
        self.environment = dict(environment, NOTIFY_SOCKET=path)
        self.heard = []
        self.stored = {}  # name: descriptor

    def hear(self, timeout):
        """The next message, kept in `heard`; what it asks to be stored or removed is."""
        self.socket.settimeout(timeout)
        message, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        message = message.decode()
        if message == "BARRIER=1":
            for fd in fds:
                os.close(fd)
            return message
        self.heard.append(message)
        lines = dict(line.split("=", 1) for line in message.splitlines())
        if lines.get("FDSTORE") == "1":
            for fd in fds:
                self.store(lines["FDNAME"], fd)
        elif lines.get("FDSTOREREMOVE") == "1":
            self.remove(lines["FDNAME"])
        return message

    def fill(self):
        """Until there is no room for one more message."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                while True:
                    sender.sendto(b"FILL=1", self.environment["NOTIFY_SOCKET"])
            except BlockingIOError:
                pass

    def wait_for(self, prefix, timeout=10):
        """The next message that begins like this."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self.hear(max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                raise AssertionError(f"no {prefix} within {timeout} s, but {self.heard}")
            if message.startswith(prefix):
                return message

    def hear_until(self, condition, timeout=10):
        deadline = time.monotonic() + timeout
        while not condition():
            try:
                self.hear(max(deadline - time.monotonic(), 0.001))
            except TimeoutError:
                raise AssertionError(f"within {timeout} s: {self.heard}, stored {self.stored}")

    def store(self, name, fd):
        self.remove(name)
        self.stored[name] = fd

    def remove(self, name):
        if name in self.stored:
            os.close(self.stored.pop(name))

    def handed_over(self, supervisor, more=()):
        """`supervisor`, which will be started with what is stored, and `more` (name, fd)."""
        pairs = [*self.stored.items(), *more]
        supervisor.pass_fds = tuple(fd for _, fd in pairs)
        supervisor.command = [sys.executable, "-c", _HAND_OVER,
                              ",".join(map(str, supervisor.pass_fds)),
                              ":".join(name for name, _ in pairs), *supervisor.command]
        return supervisor

    def close(self):
        self.socket.close()
        for name in list(self.stored):
            self.remove(name)
        shutil.rmtree(self.directory)
