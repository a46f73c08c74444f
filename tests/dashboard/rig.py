"""A dashboard whose requests are made in memory."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import urlencode

from tests.dashboard.watched import PEER, WatchedTestCase
from tests.service.rig import Session
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity

HERE = "127.0.0.1:9000"
"""A name for this server that nobody can make lead elsewhere."""


class DashboardTestCase(WatchedTestCase):
    """A dashboard where nobody is asked who they are."""

    def page(self, *headers: str, path: str = "/") -> str:
        status, _, body = self.ask(path, *headers, host=HERE)
        self.assertEqual(status, 200, body)
        return unescape(body)

    def enter(self, name: str = "") -> Any:
        identity = Identity(name) if name else ANONYMOUS_IDENTITY
        ended: list[str] = []
        client = self.service.clients.enter(
            identity,
            "203.0.113.5:40000",
            "framed",
            lambda reason: ended.append(reason.code.name),
            Session(),
        )
        self.watch.observer.clientConnected(PEER, identity, "framed")
        return client, ended

    def tunnelId(self, number: int = 0) -> str:
        return self.watch.counters.tunnels[number].id

    def question(self, identifier: str, *headers: str) -> tuple[str, dict[str, str]]:
        status, answer, body = self.ask(
            f"/dashboard/end?id={identifier}", *headers, host=HERE
        )
        self.assertEqual(status, 200, body)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', body))
        self.assertEqual(set(fields), {"form", "id"})
        cookie = answer["set-cookie"]
        self.assertIn("HttpOnly", cookie)
        self.assertIn("samesite=strict", cookie.lower())
        return cookie.partition(";")[0], fields

    def post(
        self, fields: dict[str, str], *headers: str, host: str = HERE
    ) -> tuple[int, dict[str, str], str]:
        return self.ask(
            "/dashboard/act",
            *headers,
            method="POST",
            host=host,
            body=urlencode(fields).encode(),
        )

    def end(self, identifier: str, *headers: str) -> tuple[int, dict[str, str], str]:
        cookie, fields = self.question(identifier, *headers)
        return self.post(
            fields, f"Cookie: {cookie}", f"Origin: http://{HERE}", *headers
        )
