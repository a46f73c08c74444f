"""
Showing what is in force without its secrets.
"""

from __future__ import annotations

import re
from typing import Any

from tristunnel.util.argv import SECRET_HEADERS

__all__ = ["HIDDEN", "redacted"]

HIDDEN = "(hidden)"

_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")

_HARMLESS_AUTH = ("anonymous", "clients", "file", "tokens", "unix", "sshkey", "pam")
"""Kinds of C{--auth} whose argument is a path, or nothing."""


def redacted(name: str, value: Any) -> Any:
    """
    A value of an option as it may be shown.

    @param name: The option.
    """
    if isinstance(value, list | tuple):
        return [redacted(name, each) for each in value]
    if isinstance(value, dict):
        return {key: redacted(key, each) for key, each in value.items()}
    if not isinstance(value, str):
        return value
    if name == "credentials":
        key, equals, _ = value.partition("=")
        return value if key == "id" else f"{key}{equals}{HIDDEN}"
    if name == "header":
        field = re.split("[=:]", value, maxsplit=1)[0]
        secret = field.strip().lower() in SECRET_HEADERS
        return f"{field}={HIDDEN}" if secret else value
    if name in ("tunnel", "access"):
        public, mark, _ = value.partition("#")
        return f"{public}{mark}{HIDDEN}" if mark else public
    if name == "auth":
        kind, colon, _ = value.partition(":")
        harmless = kind in _HARMLESS_AUTH or not colon
        return value if harmless else f"{kind}:{HIDDEN}"
    return _LOGIN.sub(f"{HIDDEN}@", value)
