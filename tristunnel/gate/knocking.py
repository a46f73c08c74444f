"""
C{/knock/...}: the page of a link by which an address is let in to a port.

Opening the page changes nothing, since programs that preview or scan links open it,
too. It has a button, and the form behind that lets in the address that it is posted
from.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from tristunnel.errors import TunnelError
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.pages import LOGIN_FIELDS, PIN_FIELD, SECURITY, GatePages
from tristunnel.http.browsers import OriginRule
from tristunnel.http.callers import HTTPCallers, hostOf, portOf
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.plain import refusalOf
from tristunnel.http.resource import answerWith, formOf
from tristunnel.http.site import requestKnown
from tristunnel.model.gate import GateRules
from tristunnel.service.knocked import networkOf
from tristunnel.service.knocks import Knocks, LinkedTunnel
from tristunnel.util.quantities import formatDuration

__all__ = ["KnockPage"]

_OVER = "This link is not valid, or no longer. Ask for another one."

_log = Logger(namespace="tristunnel.server")


class KnockPage(Resource):
    """
    Lets in whoever has a link.

    @param knocks: Knows the links.
    @param callers: Slows down those who guess links.
    @param forwarded: The proxies that are trusted to say for whom they speak.
    @param attempts: Checks PINs and passwords.
    @param pages: Writes the page.
    @param find: Finds a host's addresses; fails with C{DNSLookupError}.
    """

    isLeaf = True

    def __init__(
        self,
        knocks: Knocks,
        callers: HTTPCallers,
        forwarded: Forwarded,
        attempts: Attempts,
        pages: GatePages,
        find: Callable[[str], Deferred[list[str]]],
    ) -> None:
        super().__init__()
        self._knocks, self._callers = knocks, callers
        self._forwarded = forwarded
        self._attempts, self._pages = attempts, pages
        self._find = find

    def render_GET(self, request: Request) -> int:
        return answerWith(request, self._answer(request), "A knock page failed")

    render_POST = render_GET

    async def _answer(self, request: Request) -> bytes:
        peer: Any = self._forwarded.peer(request)
        path = [each.decode("ascii", "replace") for each in request.postpath or []]
        identifier, secret = path if len(path) == 2 else ("", "")
        tunnel: LinkedTunnel | None = None
        try:
            self._callers.check(peer)
            tunnel = await self._knocks.find(identifier, secret)
            requestKnown(request)
            host = getattr(peer, "host", "")
            network = networkOf(host)
            if network is None:
                raise TunnelError(
                    "not-permitted",
                    "your address is not known here: the operator of this server has"
                    " to give --trusted-proxy",
                )
            said = _Said(tunnel, str(network).removesuffix("/32"))
            if request.method != b"POST":
                return self._page(request, 200, tunnel, said.offer, said.form)
            objection = OriginRule([hostOf(request)]).objection(request)
            if objection is not None:
                return self._page(request, 403, tunnel, objection)
            problem = await self._problem(request, tunnel, host, identifier)
            if problem:
                return self._page(request, 401, tunnel, problem, said.form)
            await self._knocks.admit(identifier, secret, host)
        except TunnelError as refusal:
            return self._refused(request, tunnel, peer, refusal)
        _log.info("{host} has knocked at {address}", host=host, address=tunnel.address)
        hint = said.hint(request, await self._addresses(request, tunnel))
        return self._page(request, 200, tunnel, said.done, hint)

    async def _addresses(self, request: Request, tunnel: LinkedTunnel) -> list[str]:
        """All addresses of the host that visitors connect to, if a person asks."""
        place = tunnel.address.partition("://")[2]
        if not _wantsPage(request) or self._forwarded.isByProxy(request):
            # A proxy may know its pages by their names alone.
            return []
        try:
            return await self._find(place.rpartition(":")[0].strip("[]"))
        except DNSLookupError:
            return []

    async def _problem(
        self, request: Request, tunnel: LinkedTunnel, host: str, identifier: str
    ) -> str:
        """
        Check the PIN or the login that a tunnel asks for.

        @return: What is wrong, or nothing.
        @raise TunnelError: C{limit-reached}, if it may not be tried now.
        """
        if not (tunnel.pin or tunnel.login):
            return ""
        fields = formOf(request)
        user = fields.get("user", "")
        if tunnel.pin and "pin" in fields:
            given, kept = fields["pin"], tunnel.pin
        elif tunnel.login and user:
            kept = GateRules(login=tunnel.login).hashOf(user)
            given = fields.get("password", "")
        else:
            return "Say who you are first."
        place = f"knock {identifier}"
        if await self._attempts.isRight(host, place, given.encode(), kept):
            return ""
        return "That is wrong. Try again."

    def _refused(
        self,
        request: Request,
        tunnel: LinkedTunnel | None,
        peer: Any,
        refusal: TunnelError,
    ) -> bytes:
        status, headers = refusalOf(refusal, ())
        for name, value in headers:
            request.setHeader(name, value)
        if refusal.code.name == "unknown-tunnel":
            self._callers.loginFailed(peer)
            return self._page(request, status, None, _OVER)
        text = refusal.message[:1].upper() + refusal.message[1:]
        return self._page(request, status, tunnel, f"{text}.")

    def _page(
        self,
        request: Request,
        status: int,
        tunnel: LinkedTunnel | None,
        told: str,
        more: str = "",
    ) -> bytes:
        """
        Answer with a page, or with a line for a program.

        @param more: What follows in HTML.
        """
        request.setResponseCode(status)
        for name, value in SECURITY.items():
            request.setHeader(name, value)
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("X-Robots-Tag", "noindex")
        if not _wantsPage(request):
            request.setHeader("Content-Type", "text/plain; charset=utf-8")
            how = " A program knocks with a POST to this address." if more else ""
            return f"{told}{how if request.method != b'POST' else ''}\n".encode()
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        title = "Knock" if tunnel is None else f"Knock at {tunnel.title}"
        return self._pages.written(title, told, [more] if more else [])


class _Said:
    """
    What a page says to somebody with a link.

    @param tunnel: Where that leads.
    @param network: What would be let in.
    """

    def __init__(self, tunnel: LinkedTunnel, network: str) -> None:
        self._tunnel, self._network = tunnel, network
        kind, _, self._place = tunnel.address.partition("://")
        self._udp = " (UDP)" if kind == "udp" else ""
        self._time = formatDuration(tunnel.seconds)

    @property
    def offer(self) -> str:
        """What will happen."""
        return (
            f"The button lets connections from your address, {self._network}, in to"
            f" {self._place}{self._udp} for {self._time}."
        )

    @property
    def done(self) -> str:
        """What has happened."""
        return (
            f"Connections from {self._network} are let in to {self._place}{self._udp}"
            f" for {self._time}. Then, or from another network, knock again."
        )

    @property
    def form(self) -> str:
        """What is to be filled in, and the button."""
        asked = [PIN_FIELD] * bool(self._tunnel.pin)
        asked += [LOGIN_FIELDS] * bool(self._tunnel.login)
        return "\n".join(_form(each) for each in asked or [""])

    def hint(self, request: Request, addresses: list[str]) -> str:
        """
        What helps if the visitor's program connects over the other version of IP than
        the browser.

        @param addresses: All of the server's, as far as they are known.
        """
        isSix = ":" in self._network
        ours, other = ("IPv6", "IPv4") if isSix else ("IPv4", "IPv6")
        text = (
            f"This page was opened over {ours}. A program that connects over {other}"
            f" has another address, and is not let in."
        )
        own = str(getattr(request.getHost(), "host", ""))
        here = _public([own, *addresses], isSix)
        port = self._place.rpartition(":")[2]
        if here and port.isdecimal():
            text += f" If it cannot connect, have it connect to {here}:{port}."
        told = f"<p>{html.escape(text)}</p>"
        if there := _public(addresses, not isSix):
            secure = bool(request.isSecure())
            link = (
                f"{'https' if secure else 'http'}://{there}:{portOf(request, secure)}"
            )
            link += request.path.decode("ascii", "replace")
            more = "; your browser will warn of its certificate" * secure
            told += (
                f'\n<p><a href="{html.escape(link)}">Open this page over {other}</a>'
                f" to let that address in, too{more}.</p>"
            )
        return told


def _wantsPage(request: Request) -> bool:
    return b"text/html" in (request.getHeader(b"accept") or b"")


def _form(fields: str) -> str:
    # It is posted to the page that shows it.
    return f'<form method="post">\n{fields}\n<button>Let me in</button>\n</form>'


def _public(addresses: Iterable[str], isSix: bool) -> str:
    """
    Find a public address of one kind.

    @return: The address, with brackets for IPv6; else an empty text.
    """
    for each in addresses:
        try:
            found = ip_address(each)
        except ValueError:
            continue
        found = getattr(found, "ipv4_mapped", None) or found
        if found.is_global and isinstance(found, IPv6Address) == isSix:
            return f"[{found}]" if isSix else str(found)
    return ""
