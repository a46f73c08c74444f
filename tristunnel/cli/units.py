"""
Files that have our programs started at boot: hardened systemd units, and launchd
agents. Those in C{contrib/systemd} are made here, too.
"""

from __future__ import annotations

import plistlib
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CONTRIB", "Unit", "agent", "systemdWord"]

_COMMON = """\
# Reads the file of --config again.
ExecReload=/bin/kill -HUP $MAINPID
# Streams get --grace seconds (7) to finish, and then some.
TimeoutStopSec=30
KillMode=mixed
Restart=on-failure
RestartSec=2
LimitNOFILE=65536
TasksMax=64
UMask=0077
"""

_REFUSED = """\
# Refused credentials end the client with status 1, a wrong command line with 2;
# trying again would only fill the log.
RestartPreventExitStatus=1 2
"""

_LOW_PORTS = """\
# For ports below 1024 use tristunnel-server.socket; or, for visitors' ports,
# set both of these to CAP_NET_BIND_SERVICE.
"""

_CAPABILITIES = """\
CapabilityBoundingSet=
AmbientCapabilities=
"""

_SANDBOX = """\
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
"""

# Settings that need no namespaces: a user's systemd can do these everywhere.
_FILTERS = """\
NoNewPrivileges=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
# No MemoryDenyWriteExecute: pyOpenSSL makes callbacks at run time, and fails
# with it.
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""


@dataclass(frozen=True)
class Unit:
    """
    A systemd unit of ours.

    @ivar comment: The comment at the beginning of the file, without C{#}.
    @ivar description: What the service is.
    @ivar start: The value of C{ExecStart}.
    @ivar isClient: Whether it is a client, which ends for good when it is refused.
    @ivar lines: More settings of the service: its user and its directories.
    @ivar isUsers: Whether a user's own systemd runs it, which can do less.
    """

    comment: str
    description: str
    start: str
    isClient: bool = False
    lines: str = ""
    isUsers: bool = False

    def __str__(self) -> str:
        comment = "".join(f"# {line}\n" for line in self.comment.splitlines())
        online = "After=network-online.target\nWants=network-online.target\n"
        low = "" if self.isClient else _LOW_PORTS
        sandbox = "" if self.isUsers else f"{low}{_CAPABILITIES}\n{_SANDBOX}"
        target = "default.target" if self.isUsers else "multi-user.target"
        return (
            f"{comment}[Unit]\nDescription={self.description}\n"
            "Documentation=man:tristunnel(1)\n"
            # A user's systemd does not know the system's targets.
            f"{'' if self.isUsers else online}\n"
            f"[Service]\nType=exec\nExecStart={self.start}\n"
            f"{_COMMON}{_REFUSED if self.isClient else ''}\n"
            f"{sandbox}{_FILTERS}\n{self.lines}{chr(10) if self.lines else ''}"
            f"[Install]\nWantedBy={target}\n"
        )


def systemdWord(word: str) -> str:
    """
    Write an argument as C{ExecStart} takes it literally.

    @raise ValueError: If it cannot be a word of a command line.
    """
    if "\0" in word or "\n" in word:
        raise ValueError("an argument has one line")
    literal = word.replace("%", "%%").replace("$", "$$")
    plain = literal.replace("$", "").replace("%", "")
    if plain and all(c.isalnum() or c in "@_-+=:,./" for c in plain):
        return literal
    return '"' + literal.replace("\\", "\\\\").replace('"', '\\"') + '"'


def agent(label: str, command: Sequence[str], log: str) -> str:
    """
    Write a launchd agent: macOS starts it at login, and again when it fails.

    @param log: The file that its output goes to.
    """
    return plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": list(command),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ExitTimeOut": 30,
            "Umask": 0o077,
            "StandardOutPath": log,
            "StandardErrorPath": log,
        },
        sort_keys=False,
    ).decode()


_BIN = "/opt/tristunnel/bin/twistd -n --pidfile="

CONTRIB = {
    "tristunnel-server.service": Unit(
        "A tristunnel server. docs/install.rst says how to install it.",
        "tristunnel server",
        f"{_BIN} tunnel $TRISTUNNEL_OPTIONS",
        lines="EnvironmentFile=/etc/tristunnel/server.env\n"
        "# The server remembers leases in $STATE_DIRECTORY, and reads its tokens"
        " there.\n"
        "User=tristunnel\nGroup=tristunnel\nStateDirectory=tristunnel\n"
        "StateDirectoryMode=0700\nConfigurationDirectory=tristunnel\n"
        "WorkingDirectory=/var/lib/tristunnel\n",
    ),
    "tristunnel-client@.service": Unit(
        "A tristunnel client: tristunnel-client@NAME reads /etc/tristunnel/NAME.env.\n"
        "docs/install.rst says how to install it.",
        "tristunnel client %i",
        f"{_BIN} tunnel-client $TRISTUNNEL_OPTIONS",
        True,
        "EnvironmentFile=/etc/tristunnel/%i.env\n"
        "# The client remembers its lease in $STATE_DIRECTORY, and so gets its ports\n"
        "# back.\n"
        "DynamicUser=yes\nStateDirectory=tristunnel-client/%i\n"
        "StateDirectoryMode=0700\nWorkingDirectory=/var/lib/tristunnel-client/%i\n",
    ),
}
"""The files of C{contrib/systemd}, by name."""
