"""
The servers that a user's clients know by name: how each is reached and verified, and
the token that it has given us. They are kept in a file that only the user can read,
C{servers.toml} in the configuration directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from tristunnel.auth.files import onlyWriter, replaceFile
from tristunnel.config.file import ConfigFile, readConfig
from tristunnel.config.keys import Key, valuesIn
from tristunnel.config.settings import tomlText, tomlValue
from tristunnel.errors import badOption
from tristunnel.util.files import warnIfOpen
from tristunnel.util.words import isName, nearest

__all__ = [
    "NO_SERVER",
    "KnownServer",
    "KnownServers",
    "ServerStore",
    "configDirectory",
    "defaultConfigFile",
]

NO_SERVER = (
    "which server? give --to HOST, or accept its invitation first:"
    " tristunnel join INVITATION"
)
"""The message for a user who names no server and knows none."""

_KEYS = {
    "connect": Key("connect"),
    "pin": Key("pin", many=True, default=()),
    "token": Key("token"),
}

_HEADER = "# Written by tristunnel; 'tristunnel client --server NAME' connects to NAME."


def configDirectory() -> Path:
    """
    Find the directory of this user's configuration: the one that systemd gives to a
    service made by C{tristunnel install}; otherwise C{~/.config/tristunnel}, or its
    counterpart on this platform.
    """
    given = _credentials()
    names = ("servers.toml", "client.toml")
    if any(os.access(given / name, os.R_OK) for name in names):
        return given
    return user_config_path("tristunnel")


def _credentials() -> Path:
    """Find the directory that a unit's C{LoadCredential=} has filled, if any."""
    return Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/nowhere")


def defaultConfigFile() -> Path:
    """Find the file that C{tristunnel client} reads by default."""
    return configDirectory() / "client.toml"


@dataclass(frozen=True)
class KnownServer:
    """
    A server.

    @ivar name: This user's name for it.
    @ivar connect: Its address, as C{--connect} takes it.
    @ivar pins: Fingerprints of its certificate, as C{--pin} takes them; empty to rely
        on certificate authorities.
    @ivar token: The token that it has given us, or empty.
    """

    name: str
    connect: str
    pins: tuple[str, ...] = ()
    token: str = ""


@dataclass(frozen=True)
class KnownServers:
    """
    All known servers.

    @ivar default: The name of the one that is meant if none is named, or empty.
    @ivar byName: Each by its name.
    """

    default: str = ""
    byName: Mapping[str, KnownServer] = field(default_factory=dict)

    def find(self, name: str = "", option: str = "--to") -> KnownServer:
        """
        @param name: A server's; empty for the default one.
        @param option: The option that names a server otherwise.
        @raise TunnelError: C{bad-option}, with the nearest name or what to do.
        """
        wanted = name or self.default
        if not wanted:
            known = f"; there is --server {' or '.join(self.byName)}"
            text = NO_SERVER.replace("--to", option)
            raise badOption(text + (known if self.byName else ""))
        if wanted not in self.byName:
            first = "" if self.byName else "; join it first: tristunnel join INVITATION"
            raise badOption(
                "there is no server called"
                f" {wanted!r}{nearest(wanted, self.byName) or first}"
            )
        return self.byName[wanted]


class ServerStore:
    """
    The file of known servers.

    @param path: The file; if it does not exist, no server is known.
    """

    def __init__(self, path: str | os.PathLike[str] = "") -> None:
        # A link stays a link.
        self.path = os.path.realpath(path or configDirectory() / "servers.toml")

    def read(self) -> KnownServers:
        """
        @raise TunnelError: C{bad-option}, with the line, if the file is wrong.
        """
        if not os.path.exists(self.path):
            return KnownServers()
        file = readConfig(self.path, self.path, "")
        # systemd's own have an ACL, which shows as a group's right.
        isGiven = Path(self.path).is_relative_to(_credentials().resolve())
        if not file.private and not isGiven:
            warnIfOpen(self.path, 0o077, "tokens")
        table = dict(file.table)
        named = table.pop("server", {})
        valuesIn(file, (), table, {"default": Key("default")})
        if not isinstance(named, dict):
            raise file.wrong(("server",), "write [server.NAME]")
        found = {name: _read(file, name, each) for name, each in named.items()}
        return KnownServers(table.get("default", ""), found)

    def check(self, name: str) -> None:
        """
        Check that a server could be kept.

        @raise TunnelError: C{bad-option}, if the name or the file cannot be used.
        """
        if not name or not isName(name):
            raise badOption(
                f"a server's name has letters, digits, '-', '_' and '.', not {name!r}"
            )
        with onlyWriter(self.path, make=True):
            self.read()
        if not os.access(os.path.dirname(self.path), os.W_OK):
            raise badOption(f"cannot write {self.path!r}: Permission denied")

    def keep(self, server: KnownServer, makeDefault: bool = False) -> None:
        """
        Add a server, or replace the one of its name. The first one is the default.

        @param makeDefault: Whether it is the default from now on.
        @raise TunnelError: C{bad-option}, if the name or the file cannot be used.
        """
        self.check(server.name)
        with onlyWriter(self.path, make=True):
            known = self.read()
            default = server.name if makeDefault else known.default or server.name
            self._write(default, {**known.byName, server.name: server}.values())

    def forget(self, name: str) -> None:
        """
        Remove a server; if it was the default one, the only one left takes its
        place.

        @raise TunnelError: C{bad-option}, if there is none of that name.
        """
        with onlyWriter(self.path, make=True):
            known = self.read()
            known.find(name)
            left = {each: known.byName[each] for each in known.byName if each != name}
            default = known.default if known.default in left else ""
            if len(left) == 1:
                default = next(iter(left))
            self._write(default, left.values())

    def _write(self, default: str, servers: Iterable[KnownServer]) -> None:
        lines = [_HEADER]
        if default:
            lines.append(f"default = {tomlText(default)}")
        for server in servers:
            lines += ["", f"[server.{tomlText(server.name)}]"]
            lines.append(f"connect = {tomlText(server.connect)}")
            if server.pins:
                lines.append(f"pin = {tomlValue(server.pins)}")
            if server.token:
                lines.append(f"token = {tomlText(server.token)}")
        replaceFile(self.path, "\n".join([*lines, ""]).encode())


def _read(file: ConfigFile, name: str, table: Any) -> KnownServer:
    place = ("server", name)
    if not isinstance(table, dict):
        raise file.wrong(place, f"write [server.{name}]")
    values = valuesIn(file, place, table, _KEYS)
    if not values.get("connect"):
        raise file.wrong(place, 'the server needs an address: connect = "HOST"')
    return KnownServer(
        name, values["connect"], tuple(values.get("pin", ())), values.get("token", "")
    )
