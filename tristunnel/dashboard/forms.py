"""
The pages that ask before something is done, and the one that shows a capability.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from twisted.web.iweb import IRequest
from twisted.web.template import Element, Tag, XMLString, renderer

from tristunnel.dashboard.events import titleOf
from tristunnel.dashboard.render import partOf
from tristunnel.util.quantities import formatDuration, parseDuration

if TYPE_CHECKING:
    from tristunnel.model.tunnel import Tunnel

__all__ = ["GrantPage", "GrantedPage", "QuestionPage"]

_TIMES = {
    "15m": "15 minutes",
    "1h": "1 hour",
    "8h": "8 hours",
    "1d": "1 day",
    "7d": "7 days",
    "30d": "30 days",
}
"""For how long access can be granted."""


class QuestionPage(Element):
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
        super().__init__()
        self._title = title
        self._text = text
        self._form = form

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        """
        The whole.
        """
        return tag.fillSlots(title=self._title, text=self._text)

    @renderer
    def form(self, request: IRequest, tag: Tag) -> Tag | str:
        """
        The button.
        """
        return tag.fillSlots(**self._form) if self._form is not None else ""


class GrantPage(Element):
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
        super().__init__()
        self._tunnel = tunnel
        self._token = token
        self._values = {**dict.fromkeys(self.FIELDS, ""), "ttl": "1h", **(values or {})}
        self._wrong = wrong

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        """
        The whole.
        """
        return tag.fillSlots(
            name=titleOf(self._tunnel),
            id=self._tunnel.id,
            form=self._token,
            **self._values,
        )

    @renderer
    def wrong(self, request: IRequest, tag: Tag) -> Tag | str:
        """
        What was wrong.
        """
        return tag(self._wrong) if self._wrong else ""

    @renderer
    def times(self, request: IRequest, tag: Tag) -> Tag:
        """
        The choice of times.
        """
        for value, text in _TIMES.items():
            option = Tag("option", {"value": value}, [text])
            if value == self._values["ttl"]:
                option.attributes["selected"] = "selected"
            tag(option)
        return tag


class GrantedPage(Element):
    """
    Shows a capability, which is shown only once.

    @param tunnel: What it is for.
    @param uri: The capability.
    @param ttl: For how long it is good.
    """

    loader = XMLString(partOf("granted.xml"))

    def __init__(self, tunnel: Tunnel, uri: str, ttl: str) -> None:
        super().__init__()
        self._slots = {
            "name": titleOf(tunnel),
            "uri": uri,
            "time": _TIMES.get(ttl, formatDuration(parseDuration(ttl))),
        }

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        """
        The whole.
        """
        return tag.fillSlots(**self._slots)
