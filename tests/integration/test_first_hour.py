"""
From nothing to a visitor: four commands, typed in a terminal, in a root directory that
has Python and nothing of ours, on a server and a client in networks of their own.

It installs the wheel of this checkout, with what that needs, and wants root, and so
runs if C{TRISTUNNEL_LONG} is set.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

_ROOT = Path(__file__).parents[2]
_IP, _UNSHARE = shutil.which("ip") or "", shutil.which("unshare") or ""
_SECONDS = 60.0
"""In which a visitor must be served, from the first letter of C{pip install} on."""

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc", "/dev", "/opt")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>78]|\r")
_PAGE = "hello from my machine"

if not os.environ.get("TRISTUNNEL_LONG"):
    skip = "set TRISTUNNEL_LONG=1 to install the wheel and type in terminals"
elif os.geteuid() or not (_IP and _UNSHARE and (_ROOT / "pyproject.toml").exists()):
    skip = "it needs a checkout, root, and the programs ip and unshare"


class Terminal:
    """
    Somebody's terminal.

    @param command: The shell that runs in it.
    @param deadline: When patience ends, on the monotonic clock.

    @ivar screen: All that was shown, without colours.
    @ivar commands: How many were typed.
    """

    def __init__(self, command: list[str], deadline: float = 0.0) -> None:
        self.screen = ""
        self.commands = 0
        self.deadline = deadline
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.execv(command[0], command)

    def type(self, line: str) -> None:
        """Type a line as a person does: letter by letter, seeing each."""
        self.commands += 1
        for letter in line:
            os.write(self._terminal, letter.encode())
            self._read()
        os.write(self._terminal, b"\n")

    def until(self, pattern: str) -> re.Match[str]:
        while (found := re.search(pattern, self.screen)) is None:
            self._read()
        return found

    def _read(self) -> None:
        left = self.deadline - time.monotonic()
        ready = select.select([self._terminal], [], [], max(0.0, left))[0]
        if not ready:
            raise AssertionError(f"the time is over; it shows:\n{self.screen[-3000:]}")
        try:
            data = os.read(self._terminal, 65536)
        except OSError:
            data = b""
        if not data:
            raise AssertionError(f"it ended:\n{self.screen[-3000:]}")
        self.screen += _COLOURS.sub("", data.decode("utf-8", "replace"))

    def close(self) -> None:
        for group in {os.tcgetpgrp(self._terminal), self._pid}:
            os.killpg(group, signal.SIGKILL)
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


def _run(*words: str) -> str:
    done = subprocess.run(
        words, check=False, timeout=300, capture_output=True, text=True
    )
    assert not done.returncode, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


class FirstHourTests(SynchronousTestCase):
    """
    A server at a public address, somebody's machine, and a visitor.

    @ivar root: The root directory of them all, each with a home of its own.
    """

    def setUp(self) -> None:
        # Not below the directory of the tests: what is mounted here goes away first.
        self.root = Path(tempfile.mkdtemp(prefix="tristunnel-root"))
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "home").mkdir()
        self.names = {name: f"tth{os.getpid()}{name}" for name in "smv"}
        for space in self.names.values():
            _run(_IP, "netns", "add", space)
            self.addCleanup(_run, _IP, "netns", "delete", space)
            _run(_IP, "-n", space, "link", "set", "lo", "up")
        # Addresses that count as everybody's, which nobody else has in there.
        for name, network in (("m", "11.22.33"), ("v", "11.22.44")):
            self.lay(name, network)
        # The address of a server is one: where its way to the world begins.
        server = self.names["s"]
        _run(_IP, "-n", server, "route", "add", "default", "via", "11.22.33.2")

    def lay(self, name: str, network: str) -> None:
        here, there = self.names["s"], self.names[name]
        _run(
            *(_IP, "-n", here, "link", "add", f"v{name}", "type", "veth"),
            *("peer", "name", "net0", "netns", there),
        )
        for space, end, number in ((here, f"v{name}", 1), (there, "net0", 2)):
            address = f"{network}.{number}/24"
            _run(_IP, "-n", space, "address", "add", address, "dev", end)
            _run(_IP, "-n", space, "link", "set", end, "up")
        _run(_IP, "-n", there, "route", "add", "default", "via", f"{network}.1")

    def inside(self, who: str, space: str, *command: str) -> list[str]:
        """
        @return: What runs a command in the root directory.
        """
        (self.root / "home" / who).mkdir(exist_ok=True)
        python = [sys.base_prefix] if sys.base_prefix not in _SYSTEM else []
        places = [each for each in (*_SYSTEM, *python) if Path(each).exists()]
        mounts = "".join(
            f"mkdir -p {self.root}{each} && mount --rbind {each} {self.root}{each} && "
            for each in places
        )
        kept = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")
        values: Mapping[str, str] = {
            **{name: at for name, at in os.environ.items() if name.startswith(kept)},
            "HOME": f"/home/{who}",
            "PATH": f"/home/env/bin:{sys.base_prefix}/bin:/usr/bin:/bin",
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "PS1": "$ ",
        }
        setting = [f"{name}={value}" for name, value in values.items()]
        network = [_IP, "netns", "exec", space] if space else []
        enter = (
            f"{mounts} mkdir -p {self.root}/proc {self.root}/tmp && chmod 1777"
            f" {self.root}/tmp && mount -t proc proc {self.root}/proc && exec"
            f' chroot {self.root} env -i -C /home/{who} "$@"'
        )
        sh = ["sh", "-c", enter, "sh", *setting, *command]
        return [*network, _UNSHARE, "--mount", "--propagation", "private", *sh]

    def terminal(self, who: str, space: str = "") -> Terminal:
        name = self.names[space] if space else ""
        made = Terminal(self.inside(who, name, "sh", "-i"), time.monotonic() + _SECONDS)
        self.addCleanup(made.close)
        made.until(r"\$ ")
        return made

    def wheel(self) -> str:
        source = self.root / "source"
        source.mkdir()
        for name in ("tristunnel", "twisted", "README.rst", "LICENSE", "NEWS.rst"):
            path = _ROOT / name
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, source / name)
        for name in ("pyproject.toml", "setup.cfg", "MANIFEST.in"):
            shutil.copy(_ROOT / name, source)
        into = str(self.root / "home")
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
        _run(*pip, "--wheel-dir", into, str(source))
        shutil.rmtree(source)
        (found,) = (self.root / "home").glob("*.whl")
        return f"/home/{found.name}"

    def service(self) -> None:
        """What is on somebody's machine already: a web page at port 3000."""
        page = self.root / "home" / "me"
        page.mkdir()
        (page / "index.html").write_text(_PAGE)
        words = self.inside(
            "me", self.names["m"], "python3", "-m", "http.server", "3000"
        )
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def test_fourCommands(self) -> None:
        """Install, serve, join, share: and somebody else sees the page."""
        wheel = self.wheel()
        _run(*self.inside("root", "", "python3", "-m", "venv", "/home/env"))
        self.service()
        anywhere = self.terminal("root")
        server, mine = self.terminal("server", "s"), self.terminal("me", "m")
        began = time.monotonic()
        terminals = (anywhere, server, mine)
        for each in terminals:
            each.deadline = began + _SECONDS
        anywhere.type(f"pip install {wheel}")
        anywhere.until("Successfully installed .*tristunnel")
        server.type("tristunnel server")
        join = server.until(r"tristunnel join 11\.22\.33\.1#[0-9a-z-]{59}\b")[0]
        mine.type(join)
        mine.until("Joined 11.22.33.1")
        mine.type("tristunnel http 3000")
        address = mine.until(r"http://11\.22\.33\.1:\d+")[0]
        seen = _run(
            *self.inside(
                *("visitor", self.names["v"], "python3", "-c"),
                "import sys, urllib.request as web;"
                " print(web.urlopen(sys.argv[1], timeout=30).read().decode())",
                address,
            )
        )
        took = time.monotonic() - began
        self.assertIn(_PAGE, seen)
        self.assertEqual(sum(each.commands for each in terminals), 4)
        print(f"a visitor after {took:.1f} s and four commands")
