"""Tests of C{tristunnel install}: what is written, and what is called."""

from __future__ import annotations

import io
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli import install
from tristunnel.cli.install import addInstallCommand
from tristunnel.cli.main import parser
from tristunnel.cli.units import CONTRIB, systemdWord
from tristunnel.errors import TunnelError
from tristunnel.util.command_line import Parser

_GOLDEN = Path(__file__).with_name("golden")
_CONTRIB = Path(__file__).parents[2] / "contrib" / "systemd"
_PROGRAM = "/opt/tristunnel/bin/tristunnel"


class InstallTests(SynchronousTestCase):
    """
    A machine with a systemd, or a launchd, that does nothing.

    @ivar calls: Where that writes down how it was called.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.bin, self.home = self.directory / "bin", self.directory / "home"
        for each in (self.bin, self.home, self.directory / "run" / "systemd"):
            each.mkdir(parents=True)
        self.calls = self.directory / "calls"
        for name in ("systemctl", "launchctl"):
            self.script(name, f'echo {name} "$@" >> {self.calls}')
        for name, value in (
            ("PATH", f"{self.bin}:/bin:/usr/bin"),
            ("HOME", str(self.home)),
            ("XDG_CONFIG_HOME", str(self.home / "config")),
            ("XDG_RUNTIME_DIR", str(self.directory / "run")),
        ):
            self.patch(os, "environ", {**os.environ, name: value})
        self.patch(install, "_program", lambda: [_PROGRAM])
        self.patch(install, "_BOOTED", self.directory / "run" / "systemd")
        self.patch(install, "_unreadable", lambda program: "")
        self.patch(install, "_SETTLE", 0.0)
        self.checked: list[list[str]] = []
        self.become(1000)

    def become(self, user: int, platform: str = "linux") -> None:
        self.patch(os, "geteuid", lambda: user)
        self.patch(os, "getuid", lambda: user)
        self.patch(sys, "platform", platform)

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run_(self, *words: str) -> str:
        parser = Parser(prog="tristunnel")
        addInstallCommand(
            parser.add_subparsers(), lambda words: self.checked.append(list(words))
        )
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        options = parser.parse_args(["install", *words])
        options.run(options)
        return out.getvalue()

    def refused(self, *words: str) -> str:
        error = self.assertRaises(TunnelError, self.run_, *words)
        self.assertNotIn("\n", error.message)
        return error.message

    def called(self) -> list[str]:
        text = self.calls.read_text() if self.calls.exists() else ""
        self.calls.unlink(missing_ok=True)
        return text.splitlines()

    @property
    def unit(self) -> Path:
        return self.home / "config" / "systemd" / "user" / "tristunnel-server.service"

    def test_printed(self) -> None:
        """The units, whole; C{TRISTUNNEL_GOLDEN=1} writes them anew. Printing changes
        nothing, and needs no systemd."""
        known = self.home / "config" / "tristunnel" / "servers.toml"
        known.parent.mkdir(parents=True)
        known.touch()
        shutil.rmtree(self.bin)
        for name, user, words in (
            ("server-user.service", 1000, ["server", "--hostname", "t.example.com"]),
            ("server-system.service", 0, ["server", "--ports", "30000-31000"]),
            ("client-user.service", 1000, ["client"]),
            ("client-system.service", 0, ["--name", "web", "client", "http", "3000"]),
        ):
            self.become(user)
            text = self.run_("--print", *words)
            self.assertEqual(self.run_(*words, "--print"), text)
            text = text.replace(str(self.home), "/HOME")
            path = _GOLDEN / name
            if os.environ.get("TRISTUNNEL_GOLDEN"):
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            self.assertEqual(text, path.read_text(), name)
        self.assertFalse(self.unit.exists())

    def test_contrib(self) -> None:
        """The units that are installed by hand are made of the same parts."""
        if not _CONTRIB.is_dir():
            return
        found = {path.name: path.read_text() for path in _CONTRIB.glob("*.service")}
        self.assertEqual(found, {name: str(unit) for name, unit in CONTRIB.items()})

    def test_verified(self) -> None:
        """systemd finds nothing wrong with them."""
        analyze = shutil.which("systemd-analyze", path="/usr/bin:/bin")
        for path in _GOLDEN.glob("*.service") if analyze else ():
            text = path.read_text().replace(_PROGRAM, "/bin/true")
            text = text.replace("Documentation=man:tristunnel(1)\n", "")
            unit = self.directory / path.name
            unit.write_text(text)
            manager = "--user" if "user" in path.name else "--system"
            done = subprocess.run(
                [str(analyze), manager, "verify", str(unit)],
                capture_output=True,
                text=True,
                check=False,
            )
            if "Failed to initialize manager" not in done.stderr:
                self.assertEqual(done.stderr, "", path.name)

    def test_started(self) -> None:
        """A user's service is written, started and enabled, and what to do next is
        said; again, it is the new one that runs."""
        for _ in range(2):
            said = self.run_("server", "--hostname", "t.example.com")
            self.assertIn("tristunnel-server runs", said)
            self.assertIn("journalctl --user -u tristunnel-server", said)
            self.assertIn("loginctl enable-linger", said)
            self.assertIn("tristunnel invite", said)
            self.assertEqual(
                self.called(),
                [
                    "systemctl --user daemon-reload",
                    "systemctl --user enable tristunnel-server.service",
                    "systemctl --user restart tristunnel-server.service",
                    "systemctl --user is-active tristunnel-server.service",
                ],
            )
        start = f"ExecStart={_PROGRAM} server --hostname t.example.com\n"
        self.assertIn(start, self.unit.read_text())
        self.assertEqual(self.checked[0], ["server", "--hostname", "t.example.com"])

    def test_removed(self) -> None:
        """It is stopped before its unit is gone; what is not there is not removed."""
        self.assertIn("is not installed", self.refused("--remove", "server"))
        self.run_("server")
        self.called()
        said = self.run_("server", "--remove")
        self.assertEqual(said, "tristunnel-server is stopped and removed\n")
        self.assertFalse(self.unit.exists())
        self.assertEqual(
            self.called(),
            [
                "systemctl --user disable --now tristunnel-server.service",
                "systemctl --user daemon-reload",
            ],
        )

    def test_noSystemd(self) -> None:
        """Where nothing runs services: one line, and nothing is written."""
        for prepare in (
            lambda: shutil.rmtree(self.directory / "run"),
            lambda: (self.bin / "systemctl").unlink(),
        ):
            prepare()
            message = self.refused("server", "--hostname", "a b")
            self.assertIn("systemd does not run for this user", message)
            self.assertFalse(self.unit.exists())
            self.assertIn("is not installed", self.refused("server", "--remove"))
            self.unit.parent.mkdir(parents=True, exist_ok=True)
            self.unit.touch()
            said = self.run_("server", "--remove")
            self.assertEqual(said, f"{self.unit} is removed; nothing here runs it\n")
            self.assertFalse(self.unit.exists())

    def test_fails(self) -> None:
        """What systemd says is passed on."""
        self.script("systemctl", "echo 'Access denied' >&2; exit 1")
        message = self.refused("server")
        self.assertIn("does not start", message)
        self.assertIn("Access denied", message)
        self.script("systemctl", '[ "$2" != is-active ] || { echo failed; exit 3; }')
        message = self.refused("server")
        self.assertIn("has ended; see journalctl --user -u tristunnel-server", message)

    def test_wrong(self) -> None:
        """What could not be started is found out before."""

        def check(words: Any) -> None:
            raise SystemExit(2)

        parser = Parser(prog="tristunnel")
        addInstallCommand(parser.add_subparsers(), check)
        options = parser.parse_args(["install", "server", "--nothing"])
        self.assertRaises(SystemExit, options.run, options)
        self.assertFalse(self.unit.exists())
        self.assertRaises(SystemExit, self.run_, "--name", "../x", "server")
        self.assertIn("one line", self.refused("server", "--hostname", "a\nb"))

    def test_programs(self) -> None:
        """It is our own programs' parsers that find it out, and no state is made."""
        state = self.home / "state"
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": str(state)})
        for words, said in (
            (["server", "--hostnam", "x"], "did you mean --hostname?"),
            (["server", "--port", "nine"], "--port"),
            (["client", "http", "3000"], "which server?"),
            (["client", "http", "--to", "x", "what is this"], "what is this"),
        ):
            error = io.StringIO()
            self.patch(sys, "stderr", error)
            made = parser()
            options = made.parse_args(["install", *words])
            ended = self.assertRaises(SystemExit, options.run, options)
            self.assertEqual(ended.code, 2)
            self.assertIn(said, error.getvalue())
            self.assertEqual(error.getvalue().count("\n"), 1)
        self.run_("server")
        self.assertFalse(state.exists())

    def test_private(self) -> None:
        """A service of the system cannot run what only root can read."""
        self.become(0)
        self.patch(install, "_unreadable", type(self).unreadable)
        self.home.chmod(0o700)
        program = self.home / "tristunnel"
        program.touch(mode=0o755)
        self.patch(install, "_program", lambda: [str(program)])
        self.assertIn(f"cannot read {self.home}", self.refused("server"))

    unreadable = staticmethod(install._unreadable)

    def launchd(self, *, slow: int = 0, domain: str = "gui") -> Path:
        """
        Have a launchd that has labels, as launchctl(1) and what its users report
        describe it: it takes none twice, and ends one after C{bootout} has returned.

        @param slow: How often a new start fails after that.
        @param domain: The only domain that there is.
        @return: The file that is there while it has one.
        """
        loaded, ending = self.directory / "loaded", self.directory / "ending"
        self.patch(install, "_PAUSE", 0.0)
        self.script(
            "launchctl",
            f"""echo launchctl "$@" >> {self.calls}
            fails() {{ echo "$2 failed: $1: $3" >&2; exit $1; }}
            case "$1 $2" in
            *" {domain}"*|*" system"*) ;;
            *) fails 125 "$1" "Domain does not support specified action" ;;
            esac
            case $1 in
            bootout)
                test -e {loaded} || fails 3 Boot-out "No such process"
                rm {loaded}
                yes | head -n {slow} > {ending} ;;
            bootstrap)
                test -s {ending} && sed -i 1d {ending} && \
                    fails 5 Bootstrap "Input/output error"
                test -e {loaded} && fails 5 Bootstrap "Input/output error"
                grep -q RunAtLoad "$3" || fails 109 Bootstrap "Invalid property list"
                touch {loaded} ;;
            print)
                test -e {loaded} || fails 113 Print "Could not find service"
                cat {self.directory}/state ;;
            esac
            """,
        )
        (self.directory / "state").write_text("\tstate = running\n\tpid = 7\n")
        return loaded

    def test_macOS(self) -> None:
        """launchd has the same, in its own words."""
        self.become(501, "darwin")
        loaded = self.launchd()
        agents = self.home / "Library" / "LaunchAgents"
        path = agents / "org.tristunnel.client-web.plist"
        self.run_("--name", "web", "client", "http", "3000")
        made = plistlib.loads(path.read_bytes())
        self.assertEqual(made["ProgramArguments"], [_PROGRAM, "http", "3000"])
        self.assertTrue(made["RunAtLoad"])
        target = "gui/501/org.tristunnel.client-web"
        self.assertEqual(
            self.called(),
            [
                f"launchctl bootout {target}",
                f"launchctl enable {target}",
                f"launchctl bootstrap gui/501 {path}",
                f"launchctl print {target}",
            ],
        )
        self.assertTrue(loaded.exists())
        self.run_("--name", "web", "client", "--remove")
        self.assertFalse(path.exists())
        self.assertFalse(loaded.exists())

    def test_macOSAgain(self) -> None:
        """One that runs, or that somebody else has ended, is replaced and removed."""
        self.become(501, "darwin")
        loaded = self.launchd(slow=3)
        for _ in range(2):
            self.assertIn("runs, and will after a restart", self.run_("server"))
        self.assertEqual(sum("bootstrap" in each for each in self.called()), 5)
        loaded.unlink()
        self.assertIn("is stopped and removed", self.run_("server", "--remove"))

    def test_macOSFails(self) -> None:
        """What ends at once, or cannot run, is said in one line."""
        self.become(501, "darwin")
        self.launchd(slow=1000)
        self.run_("server")
        self.assertIn("Input/output error", self.refused("server"))
        self.launchd()
        (self.directory / "ending").unlink()
        (self.directory / "state").write_text("\tstate = spawn scheduled\n")
        self.assertIn("Library/Logs/tristunnel-server.log", self.refused("server"))
        self.launchd(domain="user")
        self.assertIn("log in there", self.refused("server"))

    @given(st.text(st.characters(exclude_characters="\0\n"), max_size=30))
    def test_words(self, word: str) -> None:
        """An argument is what systemd makes of it: its quotes are a shell's but for
        C{%} and C{$}, which are doubled."""
        written = systemdWord(word)
        doubled = word.replace("%", "%%").replace("$", "$$")
        self.assertEqual(shlex.split(written), [doubled])
