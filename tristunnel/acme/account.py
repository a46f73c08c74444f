"""
An account with an authority: its key, its registration, and the connection over which
it makes requests. All of this blocks.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

from acme import errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from requests import RequestException, Response
from twisted.logger import Logger

from tristunnel.acme.problems import AuthorityProblem, problemOf
from tristunnel.acme.settings import AuthoritySettings
from tristunnel.auth.files import replaceFile
from tristunnel.errors import TunnelError
from tristunnel.version import VERSION

__all__ = ["Account", "reach"]

TIMEOUT = 20
"""The seconds that the authority has for an answer."""

_ATTEMPTS = 4
"""How often a request is made if the authority refuses its nonce (RFC 8555, section
6.5); the library itself makes it twice."""

_AGENT = f"tristunnel/{VERSION}"

_T = TypeVar("_T")


def reach(settings: AuthoritySettings) -> None:
    """
    Find out whether an authority answers; it blocks.

    @raise AuthorityProblem: If it does not.
    """
    verify = cast(bool, settings.ca or True)
    net = ClientNetwork(None, None, ES256, verify, _AGENT, TIMEOUT)
    try:
        client = ClientV2(ClientV2.get_directory(settings.directory, net), net)
        _refuseUnbound(client, settings)
    except _FAILURES as failure:
        if isinstance(failure, AuthorityProblem):
            raise
        raise problemOf(failure, None, settings.directory) from None


def _refuseUnbound(client: ClientV2, settings: AuthoritySettings) -> None:
    if client.external_account_required() and settings.external is None:
        raise AuthorityProblem(
            f"{settings.directory} serves its customers only: write what it gives you"
            " for external account binding to a file, and give --acme-eab FILE"
        )


class Account:
    """
    An account, made when it is needed, and made again when the authority does not know
    it any more.

    @param settings: Whom to ask.
    @param stateDirectory: Where accounts are kept, as certbot keeps them: by the
        authority.
    """

    _log = Logger(namespace="tristunnel.acme")

    def __init__(self, settings: AuthoritySettings, stateDirectory: Path) -> None:
        self._settings = settings
        place = re.sub(r"[^\w.-]", "_", settings.directory.partition("://")[2])
        self._directory = stateDirectory / "accounts" / place[:200]
        # The store of nonces is not thread-safe.
        self._lock = Lock()
        self._client: ClientV2 | None = None
        self._key: JWK | None = None
        self._hint: float | None = None

    @property
    def key(self) -> JWK:
        """The account's key, once L{call} has been called."""
        assert self._key is not None
        return self._key

    def call(self, request: Callable[[ClientV2], _T]) -> _T:
        """
        Make requests of the authority.

        @param request: Makes them; may be called more than once.
        @raise AuthorityProblem: If it refuses or does not answer.
        """
        with self._lock:
            self._hint = None
            try:
                return self._tried(request)
            except AuthorityProblem:
                raise
            except _FAILURES as failure:
                raise problemOf(failure, self._hint, self._settings.directory) from None

    def _tried(self, request: Callable[[ClientV2], _T]) -> _T:
        renewed = False
        for attempt in range(_ATTEMPTS):
            try:
                return request(self._connected())
            except messages.Error as error:
                if error.code == "badNonce" and attempt < _ATTEMPTS - 1:
                    continue
                if error.code not in _NO_ACCOUNT or renewed or self._isGood():
                    raise
                renewed = True
                self._log.warn(
                    "{directory} does not know our account any more"
                    " ({reason}): making another one",
                    directory=self._settings.directory,
                    reason=error.detail or error.code,
                )
                self._client = None
                self._path("regr.json").unlink(missing_ok=True)
                self._path("private_key.json").unlink(missing_ok=True)
        raise AuthorityProblem("the authority takes none of our nonces")

    def _isGood(self) -> bool:
        """
        Whether the authority still knows the account; then it refused for another
        reason.
        """
        client = self._client
        if client is None or client.net.account is None:
            return False
        account = client.net.account
        try:
            found = client.query_registration(account)
        except messages.Error:
            return False
        finally:
            client.net.account = account
        return bool(found.body.status in (None, messages.STATUS_VALID))

    def _connected(self) -> ClientV2:
        if self._client is None:
            key, regr = self._load()
            # Any text that names a file of certificate authorities will do, as for
            # requests.
            verify = cast(bool, self._settings.ca or True)
            net = ClientNetwork(key, regr, ES256, verify, _AGENT, TIMEOUT)
            net.session.hooks["response"].append(self._remember)
            client = ClientV2(
                ClientV2.get_directory(self._settings.directory, net), net
            )
            if regr is None:
                self._register(client, key)
            self._client, self._key = client, key
        return self._client

    def _remember(self, response: Response, *args: Any, **kwargs: Any) -> None:
        """Note when to come back, which the library's errors leave out."""
        if "Retry-After" in response.headers:
            until = ClientV2.retry_after(response, 0)
            self._hint = max(0.0, until.timestamp() - time.time())

    def _register(self, client: ClientV2, key: JWK) -> None:
        _refuseUnbound(client, self._settings)
        external, binding = self._settings.external, None
        if external is not None:
            binding = messages.ExternalAccountBinding.from_data(
                key.public_key(), external.identifier, external.key, client.directory
            )
        wanted = messages.NewRegistration.from_data(
            email=self._settings.email,
            terms_of_service_agreed=True,
            external_account_binding=binding,
        )
        try:
            made = client.new_account(wanted)
        except messages.Error as error:
            if binding is None or error.code not in _UNBOUND:
                raise
            raise AuthorityProblem(
                f"{self._settings.directory} does not take what --acme-eab says"
                f" ({error.detail or error.code}): copy both lines anew"
            ) from None
        self._write("private_key.json", key.json_dumps())
        self._write("regr.json", json.dumps({"uri": made.uri}))
        self._log.info(
            "New account with {directory}, whose terms ({terms}) were agreed to by"
            " --acme",
            directory=self._settings.directory,
            terms=getattr(client.directory.meta, "terms_of_service", None) or "none",
        )

    def _load(self) -> tuple[JWK, messages.RegistrationResource | None]:
        try:
            key = JWK.json_loads(self._path("private_key.json").read_text())
            uri = str(json.loads(self._path("regr.json").read_text())["uri"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, JoseError) as problem:
            self._log.error(
                "{path} cannot be used ({problem}): making another account",
                path=self._directory,
                problem=str(problem),
            )
        else:
            return key, messages.RegistrationResource(
                body=messages.Registration(), uri=uri
            )
        return JWKEC(key=ec.generate_private_key(ec.SECP256R1())), None

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _write(self, name: str, text: str) -> None:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        replaceFile(str(self._path(name)), text.encode())


_UNBOUND = ("externalAccountRequired", "malformed", "unauthorized")
_NO_ACCOUNT = ("accountDoesNotExist", "unauthorized")

_FAILURES = (
    messages.Error,
    errors.Error,
    JoseError,
    RequestException,
    TunnelError,
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    IndexError,
    TypeError,
)
"""The exceptions of the library, which reads whatever the authority answers."""
