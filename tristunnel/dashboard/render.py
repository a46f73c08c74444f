"""
Making pages of what is to be shown, and those that ask before something is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, ClassVar

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
from tristunnel.dashboard.view import SLOTS, SPAN, Row, View
from tristunnel.errors import printable
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.quantities import formatDuration, parseDuration

if TYPE_CHECKING:
    from tristunnel.model.tunnel import Tunnel
    from tristunnel.service.caller import Caller

__all__ = ["DashboardPage", "GrantForm", "Granted", "Question", "htmlOf", "partOf"]


def partOf(name: str) -> bytes:
    """Read a file that belongs to this package."""
    return files(__package__).joinpath(name).read_bytes()


async def htmlOf(request: IRequest, element: Element) -> bytes:
    """Write an element as a whole page."""
    page: Deferred[bytes] = flattenString(request, element)
    # A name with a mark of direction would turn a page around, too.
    lines = (await page).decode("utf-8").split("\n")
    clean = "\n".join(printable(line, len(line)) for line in lines)
    return b"<!DOCTYPE html>\n" + clean.encode("utf-8") + b"\n"


class DashboardPage(Element):
    """
    The page itself.

    @param view: What it shows.
    @param caller: For whom.
    @param done: What was done a moment ago; empty for nothing.
    """

    loader = XMLString(partOf("page.xml"))

    def __init__(self, view: View, caller: Caller, done: str = "") -> None:
        super().__init__()
        self._view = view
        self._caller = caller
        self._done = done

    def lookupRenderMethod(
        self, name: str
    ) -> Callable[[IRequest | None, Tag], Flattenable]:
        # The lists, and what is said about them, are all filled in the same way.
        kind, _, which = name.rpartition("_")
        fills: dict[str, Callable[[str, IRequest | None, Tag], Flattenable]] = {
            "": self._list,
            "none": self._none,
            "note": self._note,
        }
        if which in SLOTS and kind in fills:
            return partial(fills[kind], which)
        return super().lookupRenderMethod(name)

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        caller = self._caller
        host = hostAndPort(caller.host, caller.port) if caller.port else caller.host
        return tag.fillSlots(
            host=host,
            connect=f"{'tls' if caller.secure else 'tcp'}:{host}",
            who=caller.identity.name,
            span=SPAN,
            asOf=time.strftime("%H:%M:%S UTC", time.gmtime()),
            **{f"total-{name}": text for name, text in self._view["totals"].items()},
            **{f"path-{name}": text for name, text in self._view["paths"].items()},
        )

    @renderer
    def done(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag.fillSlots(done=self._done) if self._done else ""

    def _list(self, name: str, request: IRequest | None, tag: Tag) -> list[Tag]:
        (model,) = (child for child in tag.children if isinstance(child, Tag))
        rows = [model.clone().fillSlots(**row) for row in self._view["lists"][name]]
        blank: Row = dict.fromkeys(SLOTS[name].split(), "")
        tag.children = list(rows)
        tag.attributes["data-list"] = name
        return [
            tag,
            Tag("template", {"data-row": name}, [model.clone().fillSlots(**blank)]),
        ]

    def _none(self, name: str, request: IRequest | None, tag: Tag) -> Tag:
        tag.attributes["data-none"] = name
        if self._view["lists"][name]:
            tag.attributes["hidden"] = "hidden"
        return tag

    def _note(self, name: str, request: IRequest | None, tag: Tag) -> Tag:
        note = self._view["notes"][name]
        tag.attributes["data-note"] = name
        if not note:
            tag.attributes["hidden"] = "hidden"
        return tag(note)


_TIMES = {
    "15m": "15 minutes",
    "1h": "1 hour",
    "8h": "8 hours",
    "1d": "1 day",
    "7d": "7 days",
    "30d": "30 days",
}
"""For how long access can be granted."""


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


class Question(_Filled):
    """
    A question with a button, or a message without one.

    @param title: The question.
    @param text: What follows from it.
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


class GrantForm(_Filled):
    """
    Asks who may have access to a tunnel, and for how long.

    @param tunnel: The tunnel.
    @param token: What makes the form good.
    @param values: What was in the form, if it is shown again.
    @param wrong: What was wrong with that.
    """

    FIELDS: ClassVar = ("ttl", "address", "token", "uses")

    loader = XMLString(partOf("grant.xml"))

    def __init__(
        self,
        tunnel: Tunnel,
        token: str,
        values: Mapping[str, str] | None = None,
        wrong: str = "",
    ) -> None:
        filled = {**dict.fromkeys(self.FIELDS, ""), "ttl": "1h", **(values or {})}
        super().__init__(name=titleOf(tunnel), id=tunnel.id, form=token, **filled)
        self._wrong = wrong

    @renderer
    def wrong(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag(self._wrong) if self._wrong else ""

    @renderer
    def times(self, request: IRequest, tag: Tag) -> Tag:
        for value, text in _TIMES.items():
            option = Tag("option", {"value": value}, [text])
            if value == self.slots["ttl"]:
                option.attributes["selected"] = "selected"
            tag(option)
        return tag


class Granted(_Filled):
    """
    Shows a capability, which is shown only once.

    @param tunnel: What it is for.
    @param uri: The capability.
    @param ttl: For how long it is good.
    """

    loader = XMLString(partOf("granted.xml"))

    def __init__(self, tunnel: Tunnel, uri: str, ttl: str) -> None:
        time = _TIMES.get(ttl, formatDuration(parseDuration(ttl)))
        super().__init__(name=titleOf(tunnel), uri=uri, time=time)
