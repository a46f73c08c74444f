"""
Calling a published method by its name, whatever carried the call here.

A refusal becomes a L{CallError}, which holds all that a caller may learn; the rest goes
to the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import Parameter, signature

from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.logger import Logger

from tristunnel.errors import TunnelError

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "CallError",
    "Lookup",
    "Method",
    "Params",
    "invoke",
]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

Method = Callable[..., object]
"""Takes the caller, then the parameters of the call; returns the result, a
Deferred of it or a coroutine."""

Lookup = Callable[[str], "Method | None"]
"""Finds the method of a name, or C{None}."""

Params = Sequence[object] | Mapping[str, object]

_log = Logger()


class CallError(Exception):
    """
    A call was refused or failed.

    @ivar number: The error number, as in JSON-RPC 2.0.
    @ivar message: One line for the caller.
    @ivar data: For programs: the stable C{code} and perhaps C{retryAfter}, or
        C{None}.
    """

    def __init__(self, number: int, message: str, data: object = None) -> None:
        self.number = number
        self.message = message
        self.data = data
        super().__init__(message)

    @classmethod
    def internal(cls) -> CallError:
        """A failure of ours, of which the caller learns nothing."""
        return cls(INTERNAL_ERROR, "Internal error")

    @classmethod
    def fromTunnelError(cls, error: TunnelError) -> CallError:
        """The same refusal, in the form that crosses the wire."""
        data = error.asDict()
        del data["message"]
        return cls(error.code.number, error.message, data)


def _usage(name: str, parameters: Sequence[Parameter]) -> str:
    """Write how a method is called, for example C{getTunnelAddress(uri)}."""
    words = []
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            words.append("...")
        elif parameter.kind is Parameter.VAR_KEYWORD:
            words.append("any=...")
        elif parameter.default is Parameter.empty:
            words.append(parameter.name)
        else:
            words.append(f"[{parameter.name}]")
    return f"{name}({', '.join(words)})"


def _checkParams(name: str, method: Method, caller: object, params: Params) -> None:
    """
    Compare C{params} with what C{method} takes, before it is called, so that a
    C{TypeError} inside of it is not mistaken for a mistake of the caller.

    @raise CallError: INVALID_PARAMS, naming the expected parameters.
    """
    try:
        expected = signature(method)
    except (TypeError, ValueError):
        return  # Written in C, without a signature.
    try:
        if isinstance(params, Mapping):
            expected.bind(caller, **params)
        else:
            expected.bind(caller, *params)
    except TypeError as error:
        # The reason may quote a key of the caller's, of any length.
        reason = str(error)
        if len(reason) > 120:
            reason = reason[:120] + "..."
        usage = _usage(name, list(expected.parameters.values())[1:])
        raise CallError(
            INVALID_PARAMS, f"Invalid params: {reason}; expected {usage}"
        ) from None


async def invoke(lookup: Lookup, caller: object, name: str, params: Params) -> object:
    """
    Call the method C{name}.

    @param caller: Handed to the method as its first argument.
    @param params: By position or by name.
    @return: What the method returned in the end.
    @raise CallError: For every way in which that failed; failures that are not
        a C{TunnelError} are in the log, and only there.
    """
    try:
        method = lookup(name)
    except Exception:
        _log.failure("Looking up the method {name!r} failed", name=name)
        raise CallError.internal() from None
    if method is None:
        raise CallError(METHOD_NOT_FOUND, "Method not found")
    _checkParams(name, method, caller, params)
    try:
        # Bound first: maybeDeferred has parameters of its own, with names.
        if isinstance(params, Mapping):
            return await maybeDeferred(partial(method, caller, **params))
        return await maybeDeferred(partial(method, caller, *params))
    except TunnelError as error:
        raise CallError.fromTunnelError(error) from None
    except CancelledError:
        # Mostly because the caller left, which is nobody's fault.
        raise CallError.internal() from None
    except Exception:
        _log.failure("{name} failed", name=name)
        raise CallError.internal() from None
