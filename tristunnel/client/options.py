"""What a client is told, whatever command line or file it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tristunnel.client.control import ControlPort
from tristunnel.config.options import ConfiguredOptions
from tristunnel.connect.address import ServerAddress
from tristunnel.forwards.forward import Forward
from tristunnel.model.policy import VisitorPolicy

__all__ = ["ClientOptions"]


class ClientOptions(ConfiguredOptions):
    """
    Options of a client, and what their check has made of them.

    @ivar each: One for each client of the process; the same, if there is one.
    @ivar server: Where it connects.
    @ivar forwards: What it offers.
    @ivar policy: What is asked of the visitors of all of that.
    @ivar localEndpoint: Where it listens for local visitors, or C{None}.
    @ivar stateDirectory: Where it keeps what it must remember.
    @ivar control: Where calls about it are answered; C{None}: in its directory.
    """

    processWide: ClassVar[frozenset[str]] = frozenset(
        ("check", "check-idle", "log-format", "no-screen", "rpc")
    )
    """Options that are about the whole process, of which each client may be one."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[ClientOptions] = [self]
        self.server: ServerAddress
        self.forwards: list[Forward] = []
        self.policy = VisitorPolicy()
        self.localEndpoint: Any = None
        self.stateDirectory = Path()
        self.control: ControlPort | None = None
