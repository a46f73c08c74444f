"""
C{tristunnel install}: have the system start a server or a client, at boot and
whenever it fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from argparse import REMAINDER, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tristunnel.cli.units import Unit, agent, systemdWord
from tristunnel.config.servers import configDirectory
from tristunnel.errors import badOption

__all__ = ["addInstallCommand"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,47}\Z", re.IGNORECASE)
_FORWARDS = ("http", "tcp", "udp")
_BOOTED = Path("/run/systemd/system")
"""Exists if systemd runs, see sd_booted(3)."""

_SETTLE = 3.0
"""Seconds after its start until it is checked whether a program runs."""

_CONFIGURATION = ("servers.toml", "client.toml")

_LOADED = 5
"""The exit status of C{launchctl bootstrap} while launchd is still ending an agent of
that name."""

_PAUSE = 1.0
_ENDING = 40
"""The number of attempts then; together they take a little longer than an agent's
C{ExitTimeOut}."""

_NO_DOMAIN = 125
"""Its exit status if nobody is logged in at the screen."""


def addInstallCommand(commands: Any, check: Callable[[Sequence[str]], object]) -> None:
    """
    Add C{install} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    @param check: Ends the program with one line if the command line to be installed is
        wrong.
    """
    install = commands.add_parser(
        "install",
        help="start a server or a client at boot",
        description="Have systemd (launchd on macOS) run a server or a client: the"
        " system's as root, else your own. Options come before 'server' or 'client';"
        " what follows is that program's.",
        epilog="""\
Examples:
  tristunnel install server --hostname t.example.com
  tristunnel install client http 3000
  tristunnel install --remove server""",
    )
    add = install.add_argument
    add("--print", action="store_true", help="print the unit without changing anything")
    add("--remove", action="store_true", help="stop it and remove the unit")
    add(
        "--name",
        default="",
        metavar="NAME",
        help="a name for this one, if there are several: tristunnel-client-NAME",
    )
    kinds = ("server", "client")
    add("kind", choices=kinds, metavar="server|client", help="what to run")
    rest = add("arguments", nargs=REMAINDER, metavar="...", help="its own arguments")
    rest.required = False
    install.set_defaults(run=lambda options: _run(options, check))


@dataclass(frozen=True)
class _Service:
    """
    A service as this system's service manager knows it.

    @ivar name: What it is called.
    @ivar path: The path of its unit.
    @ivar text: What the unit contains.
    @ivar start: The commands that start it.
    @ivar stop: The commands that stop it, before its unit is removed.
    @ivar forget: The commands after that.
    @ivar before: A command that ends a running one, if there is one.
    @ivar alive: A command that fails if it does not run.
    @ivar running: What that command prints if it does.
    @ivar log: The command that shows its log.
    @ivar missing: Why it cannot be started here; empty if it can.
    @ivar unfit: Why it would fail; empty if it would not.
    @ivar note: Anything else to know.
    """

    name: str
    path: Path
    text: str
    start: Sequence[Sequence[str]]
    stop: Sequence[Sequence[str]]
    forget: Sequence[Sequence[str]]
    alive: Sequence[str]
    log: str
    missing: str
    unfit: str = ""
    note: str = ""
    before: Sequence[str] = ()
    running: str = ""


def _run(options: Namespace, check: Callable[[Sequence[str]], object]) -> None:
    if options.name and not _NAME.match(options.name):
        options.parser.error("--name has letters, digits, '-', '_' and '.'")
    arguments = options.arguments
    for flag in ("--print", "--remove"):
        # At the end of a line it is meant for us: no program of ours has this option.
        if flag in arguments:
            arguments.remove(flag)
            setattr(options, flag[2:], True)
    isForward = options.kind == "client" and arguments[:1] and arguments[0] in _FORWARDS
    words = arguments if isForward else [options.kind, *arguments]
    if not options.remove:
        _try(check, words)
    name = "-".join(filter(None, ("tristunnel", options.kind, options.name)))
    make = _launchd if sys.platform == "darwin" else _systemd
    service = make(name, options.kind, words)
    if options.print:
        print(service.text, end="")
        return
    if options.remove:
        _remove(service)
        return
    if why := service.missing or service.unfit:
        raise badOption(why)
    _install(service)
    if options.kind == "server":
        print("Invite a machine with: tristunnel invite")


def _try(check: Callable[[Sequence[str]], object], words: Sequence[str]) -> None:
    """
    Read a command line to see whether it is right; a certificate that this makes is
    thrown away.
    """
    before = os.environ.get("STATE_DIRECTORY")
    with TemporaryDirectory() as directory:
        os.environ["STATE_DIRECTORY"] = directory
        try:
            check(words)
        finally:
            del os.environ["STATE_DIRECTORY"]
            if before is not None:
                os.environ["STATE_DIRECTORY"] = before


def _program() -> list[str]:
    ours = Path(sys.argv[0]).absolute()
    beside = Path(sys.executable).with_name("tristunnel")
    for path in (ours, beside):
        if path.name == "tristunnel" and os.access(path, os.X_OK):
            return [str(path)]
    return [sys.executable, "-m", "tristunnel"]


def _install(service: _Service) -> None:
    path = service.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(service.text)
        path.chmod(0o644)
    except OSError as error:
        raise badOption(f"cannot write {str(path)!r}: {error.strerror}") from None
    if service.before:
        _done(service.before)
    for command in service.start:
        _call(command, f"{service.name} does not start")
    # A program that finds something wrong ends soon.
    time.sleep(_SETTLE)
    ended = f"{service.name} has ended; see {service.log}"
    if service.running not in _call(service.alive, ended):
        raise badOption(ended)
    print(f"{service.name} runs, and will after a restart. Its log: {service.log}")
    if service.note:
        print(service.note)


def _remove(service: _Service) -> None:
    path = service.path
    if not path.exists():
        raise badOption(f"{service.name} is not installed: {path} does not exist")
    # A service that does not run here need not be stopped.
    if service.before and not service.missing:
        _done(service.before)
    for command in () if service.missing else service.stop:
        _call(command, f"{service.name} cannot be stopped")
    try:
        path.unlink()
    except OSError as error:
        raise badOption(f"cannot remove {str(path)!r}: {error.strerror}") from None
    if service.missing:
        print(f"{path} is removed; nothing here runs it")
        return
    for command in service.forget:
        _call(command, f"{service.name} is removed, but")
    print(f"{service.name} is stopped and removed")


def _call(command: Sequence[str], problem: str) -> str:
    """
    Run a program.

    @return: Its output.
    @raise TunnelError: C{bad-option}, with its output.
    """
    try:
        done = _done(command)
        for _ in range(_ENDING):
            if done.returncode != _LOADED or "bootstrap" not in command:
                break
            time.sleep(_PAUSE)
            done = _done(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise badOption(f"{problem}: {error}") from None
    if done.returncode == _NO_DOMAIN and command[0] == "launchctl":
        raise badOption(
            f"{problem}: an agent runs while you are logged in at the screen: log in"
            " there, or have the system run it, with sudo"
        )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = said[0] if said else f"status {done.returncode}"
        raise badOption(f"{problem}: {' '.join(command)}: {why}")
    return done.stdout


def _done(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=90
    )


def _systemd(name: str, kind: str, words: Sequence[str]) -> _Service:
    isUsers = getattr(os, "geteuid", int)() != 0
    program = _program()
    try:
        start = " ".join(map(systemdWord, [*program, *words]))
    except ValueError as error:
        raise badOption(str(error)) from None
    unit = Unit(
        "Written by 'tristunnel install'.",
        f"tristunnel {kind}",
        start,
        kind == "client",
        "" if isUsers else _systemLines(name, kind),
        isUsers,
    )
    base = _userDirectory() if isUsers else Path("/etc/systemd/system")
    control = ["systemctl", "--user"] if isUsers else ["systemctl"]
    file = f"{name}.service"
    runtime = _BOOTED
    if isUsers:
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere"), "systemd")
    missing = ""
    if not (shutil.which("systemctl") and runtime.is_dir()):
        missing = (
            f"systemd does not run {'for this user' if isUsers else 'here'}: have"
            f" whatever starts programs here run: {' '.join([*program, *words])}"
        )
    return _Service(
        name,
        base / file,
        str(unit),
        [
            [*control, "daemon-reload"],
            [*control, "enable", file],
            [*control, "restart", file],
        ],
        [[*control, "disable", "--now", file]],
        [[*control, "daemon-reload"]],
        [*control, "is-active", file],
        f"journalctl {'--user ' if isUsers else ''}-u {name}",
        missing,
        "" if isUsers else _unreadable(program[0]),
        "It ends when you log out, unless you run once: loginctl enable-linger"
        if isUsers
        else "",
    )


def _userDirectory() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user"


def _systemLines(name: str, kind: str) -> str:
    """
    The user and the directories of a system-wide service: a server's state is where
    'tristunnel invite' finds it, and a client gets root's known servers.
    """
    state = name.removesuffix("-server") if kind == "server" else name
    lines = [
        "DynamicUser=yes",
        f"StateDirectory={state}",
        "StateDirectoryMode=0700",
        f"WorkingDirectory=/var/lib/{state}",
    ]
    if kind == "client":
        lines += [
            f"LoadCredential={file.name}:{file}"
            for file in (configDirectory() / each for each in _CONFIGURATION)
            if file.exists()
        ]
    if kind == "server":
        lines += [
            "# For ports below 1024.",
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
            "AmbientCapabilities=CAP_NET_BIND_SERVICE",
            "PrivateUsers=no",
        ]
    if Path(sys.prefix).is_relative_to("/home"):
        lines.append("ProtectHome=read-only")
    return "\n".join([*lines, ""])


def _unreadable(program: str) -> str:
    """Find out why a service's own user cannot run us."""
    path = Path(program).absolute()
    for each in (path, *path.parents):
        if not os.stat(each).st_mode & 0o001:
            return (
                f"a service's own user cannot read {each}, where tristunnel is: install"
                " it elsewhere, as with 'python3 -m venv /opt/tristunnel', or do this"
                " as a user"
            )
    return ""


def _launchd(name: str, kind: str, words: Sequence[str]) -> _Service:
    isUsers = getattr(os, "geteuid", int)() != 0
    label = f"org.tristunnel.{name.removeprefix('tristunnel-')}"
    base = Path.home() / "Library" if isUsers else Path("/Library")
    path = base / ("LaunchAgents" if isUsers else "LaunchDaemons") / f"{label}.plist"
    log = base / "Logs" / f"{name}.log"
    user = getattr(os, "getuid", int)()
    domain = f"gui/{user}" if isUsers else "system"
    target = f"{domain}/{label}"
    return _Service(
        name,
        path,
        agent(label, [*_program(), *words], str(log)),
        [
            # It may have been disabled.
            ["launchctl", "enable", target],
            ["launchctl", "bootstrap", domain, str(path)],
        ],
        [],
        [],
        ["launchctl", "print", target],
        str(log),
        "" if shutil.which("launchctl") else "there is no launchctl here",
        before=["launchctl", "bootout", target],
        running="state = running",
    )
