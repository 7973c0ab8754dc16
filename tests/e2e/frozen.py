"""Freezes one thread of a process, while the others go on; and keeps its end from everybody."""

import ctypes
import os
import pathlib
import threading

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def thread_of(pid, name):
    """The thread of this name, or None."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            if (task / "comm").read_text().strip() == name:
                return int(task.name)
        except (FileNotFoundError, ProcessLookupError):
            pass  # one that has ended meanwhile
    return None


class Frozen:
    """A thread that stands still until its process is killed. PermissionError without
    CAP_SYS_PTRACE: workers let nobody look inside."""

    def __init__(self, tid):
        self._tid = tid
        self._error = None
        self._stopped = threading.Event()
        # Whoever traces has to stay, and has to take note of the end.
        threading.Thread(target=self._trace, daemon=True).start()
        self._stopped.wait()
        if self._error:
            raise self._error

    def _trace(self):
        try:
            self._ask(PTRACE_SEIZE)
            self._ask(PTRACE_INTERRUPT)
            os.waitpid(self._tid, WALL)
        except OSError as error:
            self._error = error
            return
        finally:
            self._stopped.set()
        self._await_end()

    def _await_end(self):
        os.waitpid(self._tid, WALL)

    def _ask(self, what):
        if _libc.ptrace(what, self._tid, None, None) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


class Unreapable(Frozen):
    """The first thread of a process, which nobody can reap when it has ended, as if it were stuck in
    the kernel, until `release`."""

    def __init__(self, pid):
        self._released = threading.Event()
        super().__init__(pid)

    def _await_end(self):
        self._released.wait()
        super()._await_end()

    def release(self):
        self._released.set()


class Thawable(Frozen):
    """Goes on where it stood, at `thaw`."""

    def __init__(self, tid):
        self._thaws = threading.Event()
        super().__init__(tid)

    def _await_end(self):
        self._thaws.wait()
        self._ask(PTRACE_DETACH)

    def thaw(self):
        self._thaws.set()


class FrozenChild(Frozen):
    """The first thread of a child of ours."""

    def __init__(self, pid):
        self._ended = threading.Event()
        super().__init__(pid)

    def _await_end(self):
        # Nobody else may wait for it meanwhile.
        self._status = os.waitpid(self._tid, WALL)[1]
        self._ended.set()

    def exit_status(self, timeout):
        """None: it has not ended within that time."""
        if not self._ended.wait(timeout):
            return None
        return os.waitstatus_to_exitcode(self._status)
