"""
A process that has imported all of tristunnel and becomes our programs, so that a test
does not wait for a second until one has imported itself.

L{ForkServer} starts this file as a program, tells it what to run, and gets the number
of a process that is its own child: nothing distinguishes that from one that was
executed, but for the command line that the system shows.

The file imports nothing of ours before it is that program, and no reactor ever, for a
reactor cannot be shared.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from types import ModuleType
from typing import Any

__all__ = ["ForkServer", "canFork"]

_LONGEST = 1 << 17
"""Bytes of a request at most; the system has a similar limit for a command."""

_DESCRIPTORS = 64
"""Of a program, at most."""

_PR_SET_CHILD_SUBREAPER = 36

_COVERAGE = "COVERAGE_PROCESS_START"


def _interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter reads when it starts, where it is too late for us."""
    prefixes = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "OPENSSL_")
    return {
        name: value
        for name, value in environment.items()
        if value and name.startswith(prefixes)
    }


def canFork() -> bool:
    """Whether the system has what is needed; a sandbox may lack it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
        _adopt(False)
    except (AttributeError, OSError):
        return False
    return True


def _adopt(adopting: bool) -> None:
    """Have processes whose parents are gone become our children, or no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopting), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class ForkServer:
    """
    The process that forks, from outside.

    @param path: What C{PYTHONPATH} is there.
    """

    def __init__(self, path: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._place = os.path.join(tempfile.mkdtemp(prefix="tt"), "socket")
        environment = {**os.environ, "PYTHONPATH": path}
        # A program measures itself.
        environment.pop(_COVERAGE, None)
        self._environment = _interpreter(environment)
        others = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, others:
            others.bind(self._place)
            others.listen(64)
            given = (theirs.fileno(), others.fileno())
            self._process = subprocess.Popen(
                [sys.executable, __file__, *map(str, given)],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=given,
                env=environment,
            )

    @property
    def words(self) -> list[str]:
        """
        What others may write in place of the interpreter, in front of C{-c}, C{-m} or
        a file. They must be in our network, and add nothing for the interpreter.
        """
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "forked.py")
        return [sys.executable, "-I", "-S", program, self._place]

    def runs(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """
        Say whether a command can be run without being executed: whether it is this
        Python with C{-c}, C{-m} or a file, in an environment that asks no more of it.
        """
        return (
            command[0] == sys.executable
            and len(command) > 1
            and (command[1] in ("-c", "-m") or not command[1].startswith("-"))
            and _interpreter(environment) == self._environment
        )

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        descriptors: Mapping[int, int],
    ) -> int:
        """
        Start a program.

        @param arguments: What comes behind the interpreter.
        @param environment: All of its environment.
        @param directory: Where it runs.
        @param descriptors: What of ours it has, by its own numbers.
        @return: The process, our child.
        """
        request = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "directory": directory,
            "descriptors": list(descriptors),
        }
        # Whoever is without a parent while this holds becomes our child.
        _adopt(True)
        try:
            told = json.dumps(request).encode()
            socket.send_fds(self._control, [told], list(descriptors.values()))
            return int(self._control.recv(_LONGEST))
        finally:
            _adopt(False)


def _importAll() -> None:
    """
    Import what our programs do. What cannot do without a reactor, because of a library
    that asks for it, is left to the programs; all else that it needs is here then.
    """
    reactor = "twisted.internet.reactor"
    sys.modules[reactor] = None  # type: ignore[assignment] # importing it fails from now on
    importlib.import_module("twisted.scripts.twistd")
    package = importlib.import_module("tristunnel")
    for module in pkgutil.walk_packages(
        package.__path__, "tristunnel.", onerror=lambda name: None
    ):
        if not module.name.endswith(".__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    del sys.modules[reactor]


def _serve(control: socket.socket, others: socket.socket) -> dict[str, Any]:
    """
    Fork as often as we are told to.

    @param control: Of who has started us, and is to be the programs' parent.
    @param others: Where anybody else comes; we are the programs' parent.
    @return: In the process that is to become a program: the request.
    """
    while True:
        ready: list[socket.socket]
        ready, _, _ = select.select([control, others], [], [])
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if others in ready:
            asking, _ = others.accept()
            if not os.fork():
                control.close()
                others.close()
                return _attend(asking)
            asking.close()
        if control in ready:
            told, descriptors = _receive(control)
            if not told:
                os.unlink(others.getsockname())
                os.rmdir(os.path.dirname(others.getsockname()))
                sys.exit()
            reading, writing = os.pipe()
            between = os.fork()
            if not between:
                program = os.fork()
                if program:
                    # Its parent is gone, so who has asked for it is its parent.
                    os.write(writing, str(program).encode())
                    os._exit(0)
                for each in (reading, writing):
                    os.close(each)
                control.close()
                others.close()
                return _placed(told, descriptors)
            os.waitpid(between, 0)
            control.send(os.read(reading, 64))
            for each in (reading, writing, *descriptors):
                os.close(each)


def _receive(asking: socket.socket) -> tuple[bytes, list[int]]:
    told, descriptors, _, _ = socket.recv_fds(asking, _LONGEST, _DESCRIPTORS)
    return told, descriptors


def _attend(asking: socket.socket) -> dict[str, Any]:
    """
    Fork once, pass signals on, and tell how the program has ended.

    @return: As L{_serve}.
    """
    told, descriptors = _receive(asking)
    program = os.fork()
    if not program:
        asking.close()
        return _placed(told, descriptors)
    for each in descriptors:
        os.close(each)
    ended = os.pidfd_open(program)
    waiting: list[socket.socket | int] = [asking, ended]
    while ended not in select.select(waiting, [], [])[0]:
        number = asking.recv(1)
        # Nobody is there any more who could end it.
        os.kill(program, number[0] if number else signal.SIGKILL)
        if not number:
            break
    _, status = os.waitpid(program, 0)
    with suppress(OSError):
        asking.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _placed(told: bytes, descriptors: Sequence[int]) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(told)
    _place(dict(zip(request["descriptors"], descriptors, strict=True)))
    return request


def _place(descriptors: Mapping[int, int]) -> None:
    free = max([*descriptors, *descriptors.values(), 2]) + 1
    held = {
        own: fcntl(ours, F_DUPFD_CLOEXEC, free) for own, ours in descriptors.items()
    }
    for each in (0, 1, 2, *descriptors.values()):
        with suppress(OSError):
            os.close(each)
    for own, each in held.items():
        os.dup2(each, own)
        os.close(each)


def _become(request: Mapping[str, Any]) -> None:
    """Run a program, as the interpreter would have."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    if _COVERAGE in os.environ:
        importlib.import_module("coverage").process_startup()
    # Others keep the output streams that were there when they were imported.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.reconfigure(
                line_buffering=stream is sys.stderr or os.isatty(stream.fileno())
            )
    with suppress(OSError):
        sys.stdin = open(  # noqa: SIM115
            0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False
        )
    kind, *arguments = request["arguments"]
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.orig_argv = [sys.executable, kind, *arguments]
    if kind == "-m":
        module, *rest = arguments
        sys.path.insert(0, os.getcwd())
        sys.argv = ["-m", *rest]
        runpy._run_module_as_main(module)  # type: ignore[attr-defined] # as python -m does
    elif kind == "-c":
        code, *rest = arguments
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest]
        exec(compile(code, "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(kind)))
        sys.argv = [kind, *arguments]
        main.__dict__["__file__"] = kind
        with open(kind, "rb") as file:
            code = compile(file.read(), kind, "exec")
        exec(code, main.__dict__)


if __name__ == "__main__":
    # Nothing is imported from this file's directory.
    del sys.path[0]
    for _each in set(signal.Signals) - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(_each) == signal.SIG_IGN:
            signal.signal(_each, signal.SIG_DFL)
    # It ends with who has started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _importAll()
    # What is there is everybody's, and nobody's garbage.
    gc.collect()
    gc.freeze()
    _become(_serve(*(socket.socket(fileno=int(each)) for each in sys.argv[1:3])))
