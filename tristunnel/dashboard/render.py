"""
Rendering the pages that show the state, and those that ask before something is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

import segno
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest
from twisted.web.template import (
    Element,
    Flattenable,
    Tag,
    XMLString,
    flattenString,
    renderer,
)

from tristunnel.dashboard.events import titleOf
from tristunnel.dashboard.history import SPANS
from tristunnel.dashboard.view import SLOTS, Row, View
from tristunnel.errors import printable
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.quantities import formatDuration, parseDuration

if TYPE_CHECKING:
    from tristunnel.model.record import TunnelRecord
    from tristunnel.service.caller import Caller

__all__ = [
    "DashboardPage",
    "GrantForm",
    "Granted",
    "InviteForm",
    "Invited",
    "Question",
    "TunnelPage",
    "htmlOf",
    "partOf",
]


def partOf(name: str) -> bytes:
    """Read a file that belongs to this package."""
    return files(__package__).joinpath(name).read_bytes()


async def htmlOf(request: IRequest, element: Element) -> bytes:
    """Write an element as a whole page."""
    page: Deferred[bytes] = flattenString(request, element)
    # A name with a mark of direction could reverse a page's text.
    lines = (await page).decode("utf-8").split("\n")
    clean = "\n".join(printable(line, len(line)) for line in lines)
    return b"<!DOCTYPE html>\n" + clean.encode("utf-8") + b"\n"


def _set(pairs: str, values: Row) -> Row:
    """Read C{data-attr} or C{data-set}: C{ATTRIBUTE=NAME}, with spaces between."""
    named = (pair.partition("=") for pair in pairs.split())
    return {attribute: values[name] for attribute, _, name in named}


def _filled(
    tag: Tag, values: Row, text: str = "data-f", attrs: str = "data-attr"
) -> Tag:
    """
    Fill in what the page's script keeps up to date: elements name their texts by
    attributes of their own.

    @param values: The texts, by name.
    @param text: The attribute that names the text within an element.
    @param attrs: The attribute that names those of other attributes.
    @return: A copy.
    """
    attributes = dict(tag.attributes)
    attributes.update(_set(str(attributes.get(attrs, "")), values))
    name = str(attributes.get(text, ""))
    children: list[Flattenable] = [
        _filled(child, values, text, attrs) if isinstance(child, Tag) else child
        for child in tag.children
    ]
    made = Tag(tag.tagName, attributes, [values[name]] if name else children)
    made.render = tag.render
    return made


_GRAPH = XMLString(partOf("graph.xml"))
_VISITORS = XMLString(partOf("visitors.xml"))


class _LivePage(Element):
    """
    A page that is kept up to date.

    @param view: What it shows.
    @param caller: The viewer.
    @param span: How long the graph looks back.
    @param query: The rest of the query in the page's address.
    """

    def __init__(
        self, view: View, caller: Caller, span: str, query: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._view = view
        self._caller = caller
        self._span = span
        self._query = query

    def lookupRenderMethod(
        self, name: str
    ) -> Callable[[IRequest | None, Tag], Flattenable]:
        # The lists and their notes are all filled in the same way.
        kind, _, which = name.rpartition("_")
        fills: dict[str, Callable[[str, IRequest | None, Tag], Flattenable]] = {
            "": self._list,
            "none": self._none,
            "note": self._note,
        }
        if which in SLOTS and kind in fills:
            return partial(fills[kind], which)
        return super().lookupRenderMethod(name)

    def _totals(self, tag: Tag) -> Tag:
        return _filled(tag, self._view["totals"], "data-total", "data-set")

    def _at(self, span: str) -> str:
        """This page's address, with another span."""
        return f"./?{urlencode({**self._query, 'span': span})}"

    @property
    def host(self) -> str:
        """The server, as the caller knows it."""
        caller = self._caller
        return hostAndPort(caller.host, caller.port) if caller.port else caller.host

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        return self._totals(tag).fillSlots(
            host=self.host,
            who=self._caller.identity.name,
            asOf=time.strftime("%H:%M:%S UTC", time.gmtime()),
            here=self._at(self._span),
        )

    @renderer
    def graph(self, request: IRequest, tag: Tag) -> Tag:
        (loaded,) = _GRAPH.load()
        assert isinstance(loaded, Tag)
        return self._totals(loaded)

    @renderer
    def spans(self, request: IRequest, tag: Tag) -> Tag:
        for name, span in SPANS.items():
            link = Tag("a", {"href": self._at(name)}, [span.words])
            if name == self._span:
                link.attributes["aria-current"] = "true"
            tag(link)
        return tag

    @renderer
    def ticks(self, request: IRequest, tag: Tag) -> Tag:
        return tag([Tag("span", {}, [text]) for text in SPANS[self._span].ticks])

    @renderer
    def visitorTable(self, request: IRequest, tag: Tag) -> list[Flattenable]:
        return _VISITORS.load()

    def _list(self, name: str, request: IRequest | None, tag: Tag) -> list[Tag]:
        (model,) = (child for child in tag.children if isinstance(child, Tag))
        rows = [_filled(model, row) for row in self._view["lists"][name]]
        blank: Row = dict.fromkeys(SLOTS[name].split(), "")
        tag.children = list(rows)
        tag.attributes["data-list"] = name
        return [tag, Tag("template", {"data-row": name}, [_filled(model, blank)])]

    def _none(self, name: str, request: IRequest | None, tag: Tag) -> Tag:
        tag.attributes["data-none"] = name
        if self._view["lists"][name]:
            tag.attributes["hidden"] = "hidden"
        return tag

    def _note(self, name: str, request: IRequest | None, tag: Tag) -> Tag:
        note = self._view["notes"].get(name, "")
        tag.attributes["data-note"] = name
        if not note:
            tag.attributes["hidden"] = "hidden"
        return tag(note)


class DashboardPage(_LivePage):
    """
    The page of the whole server.

    @param view: What it shows.
    @param caller: The viewer.
    @param span: How long the graph looks back.
    @param done: The action that was just done; empty for none.
    @param warnings: What is wrong with the server as a whole.
    @param commands: The commands to run while there is no tunnel, and their effects.
    @param invites: Whether the caller may invite clients.
    """

    loader = XMLString(partOf("page.xml"))

    def __init__(
        self,
        view: View,
        caller: Caller,
        span: str,
        done: str = "",
        warnings: Sequence[str] = (),
        commands: Sequence[tuple[str, str]] = (),
        invites: bool = False,
    ) -> None:
        super().__init__(view, caller, span, {})
        self._invites = invites
        self._done = done
        self._warnings = warnings
        self._commands = commands

    @renderer
    def done(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag.fillSlots(done=self._done) if self._done else ""

    @renderer
    def warnings(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag([Tag("li", {}, [text]) for text in self._warnings] or "")

    @renderer
    def manage(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag if self._invites else ""

    @renderer
    def invite(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag if self._invites else ""

    @renderer
    def start(self, request: IRequest, tag: Tag) -> Tag:
        tag(Tag("p", {}, ["No tunnel is open yet."]))
        for words, command in self._commands:
            tag(
                Tag("p", {}, [words]),
                Tag("p", {"class": "command"}, [Tag("code", {}, [command]), _copy()]),
            )
        return tag


def _copy() -> Tag:
    return Tag("button", {"type": "button", "class": "copy"}, ["Copy"])


class TunnelPage(_LivePage):
    """The page of one tunnel."""

    loader = XMLString(partOf("tunnel.xml"))

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        filled: Tag = super().page(request, tag)
        return filled.fillSlots(title=self._view["totals"]["title"])

    @renderer
    def code(self, request: IRequest, tag: Tag) -> Tag | str:
        """The address as a QR code, for a phone."""
        address = self._view["totals"]["page"]
        if not address:
            return ""
        rows = segno.make(address, micro=False, error="m").matrix_iter(border=2)
        cells = [list(row) for row in rows]
        drawn = "".join(
            f"M{x} {y}h1v1h-1z"
            for y, row in enumerate(cells)
            for x, dark in enumerate(row)
            if dark
        )
        size = len(cells)
        picture: dict[bytes | str, Flattenable] = {
            "viewBox": f"0 0 {size} {size}",
            "role": "img",
            "aria-label": f"QR code of {address}",
            "class": "qr",
            "shape-rendering": "crispEdges",
        }
        return Tag("svg", picture, [Tag("path", {"d": drawn})])


_TIMES = {
    "15m": "15 minutes",
    "1h": "1 hour",
    "8h": "8 hours",
    "1d": "1 day",
    "7d": "7 days",
    "30d": "30 days",
}
"""The times for which access can be granted."""


class _Filled(Element):
    """
    A page whose slots are filled in.

    @param slots: By name.
    """

    def __init__(self, **slots: str) -> None:
        super().__init__()
        self.slots = slots

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        return tag.fillSlots(**self.slots)


class _Form(_Filled):
    """
    A page with a form, which may be shown again.

    @param token: The token that makes the form valid.
    @param wrong: What was wrong with its values.
    """

    def __init__(self, token: str, wrong: str, /, **slots: str) -> None:
        super().__init__(form=token, **slots)
        self._wrong = wrong

    @renderer
    def wrong(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag(self._wrong) if self._wrong else ""


class Question(_Filled):
    """
    A question with a button, or a message without one.

    @param title: The question.
    @param text: The consequences.
    @param form: The hidden fields C{token} and C{id}, and the C{verb} on the
        button; C{None} for no button.
    """

    loader = XMLString(partOf("question.xml"))

    def __init__(
        self, title: str, text: str, form: dict[str, str] | None = None
    ) -> None:
        super().__init__(title=title, text=text)
        self._form = form

    @renderer
    def form(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag.fillSlots(**self._form) if self._form is not None else ""


class GrantForm(_Form):
    """
    Asks who may have access to a tunnel, and for how long.

    @param tunnel: The tunnel.
    @param token: The token that makes the form valid.
    @param values: The values in the form, if it is shown again.
    @param wrong: What was wrong with them.
    """

    FIELDS: ClassVar = ("ttl", "address", "token", "uses")

    loader = XMLString(partOf("grant.xml"))

    def __init__(
        self,
        tunnel: TunnelRecord,
        token: str,
        values: Mapping[str, str] | None = None,
        wrong: str = "",
    ) -> None:
        filled = {**dict.fromkeys(self.FIELDS, ""), "ttl": "1h", **(values or {})}
        super().__init__(token, wrong, name=titleOf(tunnel), id=tunnel.id, **filled)

    @renderer
    def times(self, request: IRequest, tag: Tag) -> Tag:
        for value, text in _TIMES.items():
            option = Tag("option", {"value": value}, [text])
            if value == self.slots["ttl"]:
                option.attributes["selected"] = "selected"
            tag(option)
        return tag


class InviteForm(_Form):
    """
    Asks whom to invite.

    @param token: The token that makes the form valid.
    @param values: The values in the form, if it is shown again.
    @param wrong: What was wrong with them.
    """

    FIELDS: ClassVar = ("name", "ports", "expires")

    loader = XMLString(partOf("invite.xml"))

    def __init__(
        self, token: str, values: Mapping[str, str] | None = None, wrong: str = ""
    ) -> None:
        filled = {**dict.fromkeys(self.FIELDS, ""), **(values or {})}
        super().__init__(token, wrong, **filled)


class ManagedPage(_Form):
    """
    Shows the tunnels of managed clients, with a form to add one.

    @param tunnels: The tunnels, as plain data.
    @param token: The token that makes the forms valid.
    @param values: The values in the form, if it is shown again.
    @param wrong: What was wrong with them.
    """

    FIELDS: ClassVar = ("client", "to", "port", "name")

    loader = XMLString(partOf("managed.xml"))

    def __init__(
        self,
        tunnels: Sequence[Mapping[str, Any]],
        token: str,
        values: Mapping[str, str] | None = None,
        wrong: str = "",
    ) -> None:
        filled = {**dict.fromkeys(self.FIELDS, ""), **(values or {})}
        super().__init__(token, wrong, **filled)
        self._tunnels = tunnels
        self._token = token

    @renderer
    def tunnels(self, request: IRequest, tag: Tag) -> Tag:
        for each in self._tunnels:
            name, port = each["name"], each["port"]
            state = each["refused"] and f"refused: {each['refused']}"
            place = f"{name} at port {port}" if name and port else name or port or "any"
            hidden = {"form": self._token, "id": each["id"], "do": "unmanage"}
            fields = [
                Tag("input", {"type": "hidden", "name": key, "value": value})
                for key, value in hidden.items()
            ]
            label = f"Remove {each['to']} of {each['client']}"
            button = Tag("button", {"type": "submit", "aria-label": label}, ["Remove"])
            form = Tag("form", {"method": "post", "action": "act"}, [*fields, button])
            kind = "UDP " if each["udp"] else ""
            where = place if "/" in name else f"visitors' port {place}"
            text = f"{each['client']}: {kind}{each['to']}, {where}"
            away = "" if each["connected"] else "not connected"
            tag(Tag("li", {}, [f"{text} ", Tag("b", {}, [state or away]), form]))
        return tag


class Invited(_Filled):
    """
    Shows an invitation or a token, which is shown only once.

    @param title: What was made.
    @param text: What it is for.
    @param secret: What to run, or to keep.
    """

    loader = XMLString(partOf("invited.xml"))

    def __init__(self, title: str, text: str, secret: str) -> None:
        super().__init__(title=title, text=text, secret=secret)


class Granted(_Filled):
    """
    Shows a capability, which is shown only once.

    @param tunnel: What it is for.
    @param uri: The capability.
    @param ttl: How long it is valid.
    """

    loader = XMLString(partOf("granted.xml"))

    def __init__(self, tunnel: TunnelRecord, uri: str, ttl: str) -> None:
        time = _TIMES.get(ttl, formatDuration(parseDuration(ttl)))
        super().__init__(name=titleOf(tunnel), uri=uri, time=time)
