"""
Making pages of what is to be shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files

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

from tristunnel.dashboard.view import LISTS, SPAN, Row, View
from tristunnel.errors import printable

__all__ = ["DashboardPage", "htmlOf", "partOf"]


def partOf(name: str) -> bytes:
    """
    Read a file that belongs to this package.
    """
    return files(__package__).joinpath(name).read_bytes()


async def htmlOf(request: IRequest, element: Element) -> bytes:
    """
    Write an element as a whole page.
    """
    page: Deferred[bytes] = flattenString(request, element)
    # A name with a mark of direction would turn a page around, too.
    lines = (await page).decode("utf-8").split("\n")
    clean = "\n".join(printable(line, len(line)) for line in lines)
    return b"<!DOCTYPE html>\n" + clean.encode("utf-8") + b"\n"


class DashboardPage(Element):
    """
    The page itself.

    @param view: What it shows.
    @param host: What the caller calls this server, with its port.
    @param who: Who the caller is.
    @param done: What was done a moment ago; empty for nothing.
    @param secure: Whether this server is reached by TLS.
    """

    loader = XMLString(partOf("page.xml"))

    def __init__(
        self, view: View, host: str, who: str, done: str = "", secure: bool = False
    ) -> None:
        super().__init__()
        self._view = view
        self._host = host
        self._who = who
        self._done = done
        self._scheme = "tls" if secure else "tcp"

    def lookupRenderMethod(
        self, name: str
    ) -> Callable[[IRequest | None, Tag], Flattenable]:
        """
        Find what fills a part: the lists, and what is said about them, have
        all the same.
        """
        if name in LISTS:
            return partial(self._list, name)
        kind, _, which = name.partition("_")
        if which in LISTS and kind == "none":
            return partial(self._none, which)
        if which in LISTS and kind == "note":
            return partial(self._note, which)
        return super().lookupRenderMethod(name)

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        """
        The whole.
        """
        slots = {f"total-{name}": text for name, text in self._view["totals"].items()}
        slots.update(
            (f"path-{name}", text) for name, text in self._view["paths"].items()
        )
        return tag.fillSlots(
            host=self._host,
            connect=f"{self._scheme}:{self._host}",
            who=self._who,
            span=SPAN,
            asOf=time.strftime("%H:%M:%S UTC", time.gmtime()),
            **slots,
        )

    @renderer
    def done(self, request: IRequest, tag: Tag) -> Tag | str:
        """
        What was done a moment ago.
        """
        return tag.fillSlots(done=self._done) if self._done else ""

    def _list(self, name: str, request: IRequest | None, tag: Tag) -> list[Tag]:
        (model,) = (child for child in tag.children if isinstance(child, Tag))
        rows = [model.clone().fillSlots(**row) for row in self._view["lists"][name]]
        blank: Row = dict.fromkeys(_slotsOf(name), "")
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


_SLOTS: dict[str, str] = {
    "tunnels": "id title address owner state visitors visitorsTotal rateIn rateOut"
    " bytesIn bytesOut age left in out end grant",
    "clients": "id owner from dialect tunnels bytesIn bytesOut trip age end",
    "visitors": "id from title state rateIn rateOut bytesIn bytesOut age end",
    "access": "id service owner to from uses left end",
    "tokens": "id link name state may sessions end",
    "refusals": "id who code count",
    "events": "id time datetime kind text times",
}


def _slotsOf(name: str) -> list[str]:
    return _SLOTS[name].split()
