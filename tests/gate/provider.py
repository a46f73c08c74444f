"""An OpenID provider in memory, which says what a test wants."""

from __future__ import annotations

import base64
import time
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from twisted.internet.defer import Deferred, fail, succeed

from tristunnel.gate.fetch import Unreachable

ISSUER = "https://accounts.example"
_WELL_KNOWN = "/.well-known/openid-configuration"

Said = Deferred[dict[str, Any]]


class FakeProvider:
    """
    Stands for the L{Fetcher<tristunnel.gate.fetch.Fetcher>} of one.

    @ivar about: What it says of itself.
    @ivar claims: What it says of who signs in, beside what it must.
    @ivar head: What is in the head of its tokens.
    @ivar trouble: Why it does not answer; empty if it does.
    @ivar asked: The URLs that were asked for.
    """

    def __init__(self) -> None:
        self.about: dict[str, Any] = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/auth?x=1",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
        }
        self.claims: dict[str, Any] = {}
        self.head: dict[str, Any] = {"kid": "one", "alg": "ES256"}
        self.trouble = ""
        self.asked: list[str] = []
        self.token: str | None = None
        self.silent = False
        self._codes: dict[str, dict[str, list[str]]] = {}
        self.rotate("one")

    def rotate(self, name: str) -> None:
        self.key: EllipticCurvePrivateKey = generate_private_key(SECP256R1())
        self.head["kid"] = name
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        self.keys = [{**jwk, "kid": name, "use": "sig"}]

    def authorize(self, url: str) -> tuple[str, str]:
        """Be visited; where the visitor is sent back to, the code, and the state."""
        asked = parse_qs(urlsplit(url).query)
        assert asked["response_type"] == ["code"]
        assert asked["code_challenge_method"] == ["S256"]
        code = f"code{len(self._codes)}"
        self._codes[code] = asked
        where = urlsplit(asked["redirect_uri"][0]).path
        return f"{where}?code={code}&state={asked['state'][0]}", asked["state"][0]

    def get(self, url: str) -> Said:
        self.asked.append(url)
        if self.silent:
            return Deferred()
        if self.trouble:
            return fail(Unreachable(self.trouble))
        if url == ISSUER + _WELL_KNOWN:
            return succeed(self.about)
        assert url == f"{ISSUER}/keys"
        return succeed({"keys": self.keys})

    def post(self, url: str, form: bytes, headers: dict[str, str]) -> Said:
        assert url == f"{ISSUER}/token"
        assert headers["Authorization"].startswith("Basic ")
        said = parse_qs(form.decode())
        asked = self._codes.pop(said["code"][0], None)
        if asked is None:
            return fail(Unreachable("it answered 400", True))
        verifier = sha256(said["code_verifier"][0].encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).decode().rstrip("=")
        assert challenge == asked["code_challenge"][0]
        assert said["redirect_uri"] == asked["redirect_uri"]
        return succeed({"id_token": self.token or self._token(asked["nonce"][0])})

    def _token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": "blog",
            "sub": "u1",
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            **self.claims,
        }
        algorithm = self.head["alg"]
        if algorithm == "none":
            return jwt.encode(claims, "", "none", headers=self.head)
        if algorithm == "HS256":
            # As if the provider's public key were a password.
            secret = self.keys[0]["x"]
            return jwt.encode(claims, secret, "HS256", headers=self.head)
        return jwt.encode(claims, self.key, algorithm, headers=self.head)
