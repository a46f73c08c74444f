"""A server in memory whose clients have tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.dialects.framed.network import RawPeer
from tests.dialects.framed.server_rig import OFFER, ServerTestCase, call
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import TokenFile
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.model.permissions import Identity, Permissions
from tristunnel.service.caller import Caller
from tristunnel.service.methods import methodsOf

__all__ = ["NOW", "TokenServerTestCase"]

NOW = 1_900_000_000.0
"""The time of day when a test begins."""


class TokenServerTestCase(ServerTestCase):
    """
    A test of a server that asks for tokens.

    @ivar path: The token file.
    @ivar store: The same file, as an operator changes it.
    @ivar tokens: Tokens by name.
    """

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.mktemp())
        self.store = TokenStore(self.path, self.now)
        self.tokens: dict[str, str] = {}
        self.turn = 0
        self.makeToken("admin", may=frozenset({"admin"}))
        self.checker = TokenFile(self.path, self.clock, self.now)
        self.authenticator = Authenticator(portalFor([self.checker]))
        self.sessions = TunnelServerFactory(
            self.clock, self.service, self.authenticator
        )
        self.service.clientPort = (9000, False)
        self.addCleanup(self.checkQuiet)

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def checkQuiet(self) -> None:
        for session in list(self.sessions.sessions):
            session.connection.transport.abortConnection()
        self.settle()
        self.clock.advance(200)
        self.service.access.close()
        self.clock.advance(2)
        self.assertEqual(list(self.service.clients), [])
        self.assertEqual(self.service.rights._tunnels, {})
        for late in self.clock.getDelayedCalls():
            called = getattr(late, "func", None)
            self.assertNotIsInstance(getattr(called, "__self__", None), TokenFile)

    # The file

    def touch(self) -> None:
        self.turn += 1
        os.utime(self.path, (self.turn, self.turn))

    def makeToken(self, name: str, /, **permissions: Any) -> str:
        token = self.store.create(name, Permissions(**permissions))
        self.tokens[name] = token
        self.touch()
        return token

    def revoke(self, name: str) -> None:
        self.store.revoke(name)
        self.touch()

    def rewrite(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))
        self.touch()

    # Clients

    def plain(self, name: str) -> RawPeer:
        return self.dial({"id": "x", "token": self.tokens[name]})

    def client(self, name: str, /, **offer: object) -> RawPeer:
        return self.dial({"token": self.tokens[name], "tristunnel": {**OFFER, **offer}})

    def refusal(self, peer: RawPeer) -> str:
        self.assertIsNotNone(peer.lost)
        code: str = peer.handshake["tristunnel"]["refused"]["code"]
        return code

    def ask(self, peer: RawPeer, method: str, /, **params: object) -> Any:
        peer.say(call(7, method, **params))
        self.settle()
        return self.outcomeOf(self.answers(peer)[7])

    @staticmethod
    def outcomeOf(answer: dict[str, Any]) -> Any:
        if "error" in answer:
            return answer["error"].get("data", {}).get("code", answer["error"])
        return answer["result"]

    # RPC

    def identity(self, name: str) -> Identity:
        return self.successResultOf(
            self.authenticator.authenticateBearer(self.tokens[name])
        )

    def rpc(self, name: str, method: str, /, **params: object) -> Any:
        caller = Caller(self.identity(name), "server", 9000, address="192.0.2.1")
        dispatcher = Dispatcher(methodsOf(self.service).get)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer: Deferred[Any] = dispatcher.dispatchObject(caller, request)
        return self.outcomeOf(self.successResultOf(answer))
