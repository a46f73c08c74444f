"""
Heads as they are passed on: they are always written anew from what was read.

So nothing that a visitor says about where a message ends, or about where it comes from,
reaches a service: hop-by-hop headers (RFC 9110, section 7.6.1) are left out, and
C{X-Forwarded-For}, C{-Proto}, C{-Host} and C{Forwarded} (RFC 7239) say what this server
knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tristunnel.errors import badOption, printable
from tristunnel.model.options import TunnelOptions
from tristunnel.names.origin import Origin
from tristunnel.util.hosts import addressOf, parsePlace
from tristunnel.wire.http import Headers, RequestHead, ResponseHead

__all__ = [
    "ANYBODY",
    "COOKIES",
    "UNCHANGED",
    "Guest",
    "HeadRules",
    "requestBytes",
    "responseBytes",
    "trailerBytes",
]

COOKIES = b"tristunnel-"
"""What the names of gates' cookies contain, which no service gets to see."""

_HOP = frozenset(
    (
        *(b"close", b"connection", b"content-length", b"host", b"http2-settings"),
        *(b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"),
    )
)
_ORIGIN = frozenset((b"forwarded", b"x-real-ip", b"x-url-scheme"))
_FORWARDED = b"x-forwarded-"
_KNOWN = _HOP | _ORIGIN
_ALIKE = bytes(x if bytes((x,)).isalnum() else ord("-") for x in range(256))
"""Maps letters and digits to themselves, and all other bytes to hyphens."""
_USUAL = frozenset((b"close", b"keep-alive", b"upgrade"))
"""What C{Connection} usually says: these are left out anyway."""
_PLAIN = frozenset(
    b"accept accept-charset accept-encoding accept-language authorization cache-control"
    b" content-encoding content-language content-type cookie dnt expect if-match"
    b" if-modified-since if-none-match if-range origin pragma priority range referer"
    b" sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode"
    b" sec-fetch-site sec-fetch-user sec-websocket-extensions sec-websocket-key"
    b" sec-websocket-version upgrade-insecure-requests user-agent".split()
)
"""Headers that most requests have, and which need no closer look."""
_LOOKED_AT = frozenset((b"location", b"set-cookie"))

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[\t\x20-\x7e]{0,2000}")
_LINE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_MOST_RULES = 50
_LOCATION = re.compile(rb"(https?):?//([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_PORT = re.compile(rb":[0-9]*\Z")
_PORTS = (80, 443)
_DOMAIN = re.compile(rb";\s*domain=\.?([^;]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Changes:
    """
    What is changed in heads of one direction.

    @ivar dropped: Names of headers that are left out, in lower case.
    @ivar added: Lines that are always added.
    @ivar ofRequest: All that are left out of requests.
    @ivar ofResponse: All that are left out of responses.
    """

    dropped: frozenset[bytes] = frozenset()
    added: bytes = b""
    ofRequest: frozenset[bytes] = field(init=False)
    ofResponse: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ofRequest", self.dropped | _KNOWN)
        object.__setattr__(self, "ofResponse", self.dropped | _HOP)

    def gone(self, connection: frozenset[bytes], isRequest: bool) -> frozenset[bytes]:
        """
        Find what is left out of a message.

        @param connection: What its C{Connection} says.
        """
        gone = self.ofRequest if isRequest else self.ofResponse
        return gone if connection <= _USUAL else gone | connection

    @classmethod
    def of(cls, texts: Iterable[str], option: str) -> _Changes:
        texts = list(texts)
        if len(texts) > _MOST_RULES:
            raise badOption(f"option {option} takes at most {_MOST_RULES} headers")
        dropped, added = set(), []
        for text in texts:
            name, colon, value = text.partition(":")
            gone = not colon and name.startswith("-")
            name, value = name.removeprefix("-" if gone else ""), value.strip()
            if not (
                (gone or colon) and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
            ):
                raise badOption(
                    f"option {option} takes 'Name: value' to set a header, and '-Name'"
                    f" to leave one out; {printable(text, 60)!r} is neither"
                )
            lower = name.lower().encode("ascii")
            if lower in _HOP or lower == b"trailer":
                cure = "write host=NAME" if lower == b"host" else "leave it out"
                raise badOption(
                    f"option {option} cannot change the header {name}; {cure}"
                )
            dropped.add(lower)
            if colon:
                added.append(f"{name}: {value}\r\n".encode("ascii"))
        return cls(frozenset(dropped), b"".join(added))


@dataclass(frozen=True, slots=True)
class HeadRules:
    """
    What the owner of a tunnel has changed in its heads.

    @ivar host: What C{Host} says to the service; empty for what the visitor sent.
    @ivar own: The host that the service may call itself in a redirect, in lower case.
    @ivar port: Its port with a colon in front; empty if that is not known.
    @ivar request: What is changed in requests.
    @ivar response: What is changed in responses.
    """

    host: bytes = b""
    own: frozenset[bytes] = frozenset()
    port: bytes = b""
    request: _Changes = _Changes()
    response: _Changes = _Changes()

    @classmethod
    def of(cls, options: TunnelOptions) -> HeadRules:
        """
        @raise TunnelError: C{bad-option}.
        """
        host = options.hostHeader
        if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]{0,260}", host):
            raise badOption(
                f"{printable(host, 80)!r} is not a valid host for option hostHeader"
            )
        names = {host.lower().encode("ascii")} - {b""}
        port = b""
        if options.ownHost:
            place, number = _ownHost(options.ownHost)
            port = b":%d" % number
            names |= {each + port for each in place}
            names |= place if number in _PORTS else set()
        return cls(
            host.encode("ascii"),
            frozenset(names),
            port,
            _Changes.of(options.requestHeaders, "requestHeaders"),
            _Changes.of(options.responseHeaders, "responseHeaders"),
        )


def _ownHost(text: str) -> tuple[set[bytes], int]:
    """
    Read where a service is.

    @return: What its host may be called, and its port.
    @raise TunnelError: C{bad-option}.
    """
    try:
        host, port = parsePlace(text)
    except ValueError:
        raise badOption(
            f"{printable(text, 80)!r} is not HOST:PORT, which option ownHost takes"
        ) from None
    address = addressOf(host)
    here = host == "localhost" or (address is not None and address.is_loopback)
    names = ("localhost", "127.0.0.1", "::1") if here else (host.lower(),)
    return {f"[{x}]".encode() if ":" in x else x.encode("ascii") for x in names}, port


@dataclass(frozen=True, slots=True)
class Guest:
    """
    Somebody whom a tunnel's gate lets in.

    @ivar lines: Headers that tell the service who it is.
    @ivar without: Headers of the request that are not the service's to see, in lower
        case.
    """

    lines: bytes = b""
    without: frozenset[bytes] = frozenset()


ANYBODY = Guest()
"""A guest of whom nothing is known."""


UNCHANGED = HeadRules()
"""The rules where an owner has set none."""


def _kept(
    headers: Headers, connection: frozenset[bytes], changes: _Changes, isRequest: bool
) -> list[bytes]:
    """The lines of those headers that go on."""
    gone = changes.gone(connection, isRequest)
    if not isRequest:
        return [
            b"%b: %b\r\n" % (name, v) for low, name, v in headers if low not in gone
        ]
    return [
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in headers
        if lower not in gone and (lower in _PLAIN or not _isOurs(lower, gone))
    ]


def _isOurs(name: bytes, gone: frozenset[bytes]) -> bool:
    """
    Whether a header's value may only come from us or the owner. This includes names
    with an underscore, a dot or the like in place of a hyphen, since to CGI, WSGI and
    some servers all of these are the same.
    """
    name = name.translate(_ALIKE)
    return name in gone or name.startswith(_FORWARDED)


def _forService(headers: Headers, guest: Guest) -> Headers:
    """Find the headers for a service, which must not get our cookies."""
    kept: Headers = []
    for lower, name, value in headers:
        if lower in guest.without:
            continue
        if lower == b"cookie":
            value = b"; ".join(
                each
                for each in map(bytes.strip, value.split(b";"))
                if COOKIES not in each.partition(b"=")[0]
            )
            if not value:
                continue
        kept.append((lower, name, value))
    return kept


def requestBytes(
    head: RequestHead, rules: HeadRules, origin: Origin, guest: Guest = ANYBODY
) -> bytes:
    """
    Write the head of a request for a service.

    @param guest: Who makes it.
    """
    told = origin.lines(head.host) + guest.lines
    written = _request(head, head.headers, rules, told)
    if COOKIES in written or guest.without:
        written = _request(head, _forService(head.headers, guest), rules, told)
    return written


def _request(
    head: RequestHead, headers: Headers, rules: HeadRules, told: bytes
) -> bytes:
    lines = [
        b"%s %s HTTP/1.1\r\nHost: %s\r\n"
        % (head.method, head.target, rules.host or head.host)
    ]
    lines += _kept(headers, head.connection, rules.request, True)
    lines.append(told)
    if rules.request.added:
        lines.append(rules.request.added)
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif head.length is not None:
        lines.append(b"Content-Length: %d\r\n" % head.length)
    if head.upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %s\r\n" % head.upgrade)
    lines.append(b"\r\n")
    return b"".join(lines)


def responseBytes(
    head: ResponseHead,
    rules: HeadRules,
    request: RequestHead,
    scheme: bytes,
    framing: bytes,
) -> bytes:
    """
    Write the head of a response for a visitor.

    @param request: What it answers.
    @param scheme: The scheme that the visitor uses.
    @param framing: The lines that say how long it is, and what is next.
    """
    reason = head.reason
    if not reason.isalpha():
        reason = _LINE.sub(b"", reason)
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, reason)]
    gone = rules.response.gone(head.connection, False)
    for lower, name, value in head.headers:
        if lower in gone:
            continue
        if lower in _LOOKED_AT:
            if lower == b"location":
                value = _location(value, rules, request.host, scheme)
            elif rules.own:
                value = _cookie(value, rules.own)
        lines.append(b"%b: %b\r\n" % (name, value))
    if rules.response.added:
        lines.append(rules.response.added)
    if head.status == 101:
        framing = b"Connection: Upgrade\r\nUpgrade: %s\r\n" % head.upgrade
    lines.append(framing)
    lines.append(b"\r\n")
    return b"".join(lines)


def _location(value: bytes, rules: HeadRules, public: bytes, scheme: bytes) -> bytes:
    """
    Make a redirect lead to where the visitor is: an application may only know the host
    that it was told, its own host or port, and that it is reached in clear text.
    """
    found = _LOCATION.fullmatch(value)
    if found is None:
        return value
    said, host, rest = found[1], found[2].lower(), found[3]
    name = _PORT.sub(b"", public.lower())
    isPublic = said.lower() == b"http" and host == public.lower()
    isItsPort = bool(rules.port) and host == name + rules.port
    if not (isPublic or isItsPort or host in rules.own):
        return value
    return b"%b://%b%b" % (scheme, public, rest)


def _cookie(value: bytes, own: frozenset[bytes]) -> bytes:
    """
    Give a cookie that a service has set for its own host to the host that visitors ask
    for.
    """
    found = _DOMAIN.search(value)
    if found is None:
        return value
    domain = found[1].strip().lower()
    if not any(_PORT.sub(b"", host) == domain for host in own):
        return value
    return value[: found.start()] + value[found.end() :]


def trailerBytes(trailers: Headers, isRequest: bool) -> bytes:
    """Write what follows the last chunk, and the end."""
    changes = _Changes(frozenset((b"authorization", b"cookie", b"set-cookie")))
    lines = _kept(trailers, frozenset(), changes, isRequest)
    return b"0\r\n" + b"".join(lines) + b"\r\n"
