"""Ports for clients that can use no other port, and have no TLS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tristunnel.dialects.table import Served, ownerOf
from tristunnel.errors import badOption
from tristunnel.server.ports import ServerPort, TLSFiles, numberIn, parsePort

__all__ = ["takeOwnPorts"]


def takeOwnPorts(
    reactor: Any, descriptions: Sequence[str], written: Sequence[str], served: Served
) -> tuple[list[str], list[ServerPort]]:
    """
    Separate the ports of such clients from the others.

    @param descriptions: All of them, in full.
    @param written: The same as the user wrote them: one without a kind there may have
        been given TLS.
    @param served: The dialects that are spoken.
    @return: The others, and those ports.
    @raise TunnelError: C{bad-option}.
    """
    others, ports = [], []
    for description in descriptions:
        owner = ownerOf(numberIn(description), served)
        if owner is None:
            others.append(description)
            continue
        if description.startswith("ssl:") and description in written:
            raise badOption(
                f"--port {description} is for {owner.name}, whose clients have no TLS:"
                f" write tcp:{owner.ownPort}"
            )
        kind = "tcp6" if description.startswith("tcp6:") else "tcp"
        plain = f"{kind}:{description.partition(':')[2]}"
        ports.append(parsePort(reactor, plain, TLSFiles(), Path(), ()))
    if not others:
        raise badOption(
            f"--port {descriptions[0]} is for one kind of client only: give another"
            " --port, such as tcp:9000, as well"
        )
    return others, ports
