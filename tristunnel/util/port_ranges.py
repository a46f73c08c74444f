"""Several ports at once: C{6000-6010=localhost:7000-7010}, one tunnel for each."""

from __future__ import annotations

import re

from tristunnel.errors import TunnelError, badOption, printable

__all__ = ["MOST", "expandedForward", "pairedPorts"]

MOST = 1000
"""Ports in one range."""

_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")
# A host, too, can be called 10-20.
_IN_TARGET = re.compile(r"^[0-9]{1,5}-[0-9]{1,5}$|(?<=:)[0-9]{1,5}-[0-9]{1,5}(?=$|:)")
_WANTED = re.compile(r"((?:udp/|tcp/)?)([0-9]{1,5}-[0-9]{1,5})\s*[=:]\s*(.+)")
_ANY = re.compile(r"((?:udp/|tcp/)?)(?:0?\s*=\s*)?(.+)")


def _ports(text: str) -> range:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise badOption(f"{printable(text, 40)!r} is no range; write 6000-6010")
    first, last = map(int, found.groups())
    if not 0 < first <= last < 65536:
        raise badOption(f"{text} is no range of ports: it goes from 1 up to 65535")
    if last - first >= MOST:
        raise badOption(f"{text} has more than {MOST} ports; take several ranges")
    return range(first, last + 1)


def pairedPorts(wanted: str, target: str) -> list[tuple[int, str]]:
    """
    Pair the ports of two ranges.

    @param wanted: The visitors' ports, such as C{6000-6010}; empty for any.
    @param target: The services, such as C{localhost:7000-7010}.
    @return: Each visitors' port, or 0, and its service.
    @raise TunnelError: C{bad-option}, if there are not as many of both.
    """
    found = list(_IN_TARGET.finditer(target))
    if len(found) != 1:
        raise badOption(
            f"for the ports {wanted} the target has to have as many, such as"
            f" localhost:{wanted}; {printable(target, 100)!r} has not"
        )
    services = _ports(found[0][0])
    ports = _ports(wanted) if wanted else [0] * len(services)
    if len(ports) != len(services):
        raise badOption(
            f"{wanted} are {len(ports)} ports, and {found[0][0]} are {len(services)}:"
            " both ranges must have the same length"
        )
    start, end = found[0].span()
    return [
        (port, f"{target[:start]}{service}{target[end:]}")
        for port, service in zip(ports, services, strict=True)
    ]


def expandedForward(spec: str) -> list[str]:
    """
    Read a forward that may have ranges of ports.

    @param spec: What L{parseForward<tristunnel.forwards.forward.parseForward>}
        takes, or the same with a range before and behind C{=}; without the one
        before, visitors come to any ports.
    @return: What it means, with one port each; C{spec} itself if it has no range.
    @raise TunnelError: C{bad-option}.
    """
    body, *said = re.split(r"(?<!\\)(?=,)", spec, maxsplit=1)
    body, options = body.strip(), "".join(said)
    suffix = body[-4:] if body.endswith(("/udp", "/tcp")) else ""
    body = body.removesuffix(suffix)
    if found := _WANTED.fullmatch(body):
        kind, wanted, target = found.groups()
    elif _IN_TARGET.search(body.rpartition("=")[2]):
        found = _ANY.fullmatch(body)
        kind, target = found.groups() if found else ("", body)
        wanted = ""
        if "=" in target.partition(":")[0]:
            name = printable(target.partition("=")[0], 64)
            raise badOption(
                f"--forward {spec!r}: several tunnels cannot all be {name!r}; write a"
                " range of ports in front, or 0 for any"
            )
    else:
        return [spec]
    try:
        pairs = pairedPorts(wanted, target)
    except TunnelError as error:
        raise badOption(f"--forward {spec!r}: {error.message}") from None
    return [f"{kind}{port}={each}{suffix}{options}" for port, each in pairs]
