"""
The same calls as XML-RPC, which is what Tristero's own callers spoke.

Parameters go by position; a single struct holds parameters by name. An error
is a fault with the number and the message that JSON-RPC would give.

This is not a C{twisted.web.xmlrpc.XMLRPC}: its reading of a call expands entities and
quotes the parser's exceptions to the caller, its writing quotes those about results,
and a call goes on when its caller has left. Nothing but the name would be inherited.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from math import isfinite
from typing import Any
from xml.parsers.expat import ParserCreate
from xmlrpc.client import Fault, Unmarshaller, dumps

from twisted.logger import Logger

from tristunnel.http.resource import CallerFor, PostedCalls
from tristunnel.jsonrpc.calls import (
    INVALID_PARAMS,
    PARSE_ERROR,
    CallError,
    Lookup,
    Params,
    invoke,
)
from tristunnel.jsonrpc.strictjson import MAX_DEPTH, depthWithin

__all__ = ["TunnelXMLRPC"]

_MAX_ELEMENTS = 4 * MAX_DEPTH + 8
"""How deep elements may be nested: a struct in a struct is four of them."""

_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT_BITS = 31
_EXACT_BITS = 53


def _bad(why: str) -> CallError:
    return CallError(PARSE_ERROR, f"Parse error: {why}")


def _parse(body: bytes) -> tuple[str, list[object]]:
    """
    Read a call.

    Document types are refused before anything in them is looked at, so that no
    entity is ever defined, expanded or fetched.

    @return: The name of the method and its parameters.
    @raise CallError: PARSE_ERROR, for anything that is wrong with it.
    """
    depth = 0
    target = Unmarshaller(use_builtin_types=True)
    target.xml("", None)  # No encoding: it will be given text.
    parser = ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_ELEMENTS:
            raise _bad("nested too deeply")
        target.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        target.end(name)

    def refuse(*_: object) -> None:
        raise _bad("a document type is not accepted")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = target.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(body, True)
        params = target.close()
        name = target.getmethodname()
    except CallError:
        raise
    except Exception:
        # A broken document can cause any of a dozen exceptions.
        raise _bad("not an XML-RPC call") from None
    if not isinstance(name, str):
        raise _bad("not an XML-RPC call")
    return name, list(params)


def _checkTypes(value: object) -> None:
    """
    Accept only what JSON could have carried, too, so that methods get the same values
    from everywhere.

    @raise CallError: INVALID_PARAMS.
    """
    if isinstance(value, list):
        for item in value:
            _checkTypes(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _checkTypes(key)
            _checkTypes(item)
    elif isinstance(value, float):
        if not isfinite(value):
            raise CallError(INVALID_PARAMS, "Invalid params: a number is not finite")
    elif not (value is None or isinstance(value, (bool, int, str))):
        raise CallError(
            INVALID_PARAMS,
            "Invalid params: only strings, numbers, booleans, nil, arrays and"
            " structs are accepted",
        )


def _toXML(value: object) -> Any:
    """
    Bring a result into a form that XML-RPC can carry: its integers have 32
    bits, so that longer ones become doubles, or text if a double would round
    them; its text has no control characters.
    """
    if isinstance(value, str):
        return _NOT_IN_XML.sub("\ufffd", value)
    if isinstance(value, bool) or not isinstance(value, (int, list, tuple, dict)):
        return value
    if isinstance(value, int):
        if value.bit_length() <= _INT_BITS:
            return value
        return float(value) if value.bit_length() <= _EXACT_BITS else str(value)
    if isinstance(value, dict):
        return {_toXML(str(key)): _toXML(item) for key, item in value.items()}
    return [_toXML(item) for item in value]


class TunnelXMLRPC(PostedCalls):
    """
    XML-RPC over HTTP, for the same methods as JSON-RPC.

    @param lookup: Finds the method of a name, as for
        L{Dispatcher<tristunnel.jsonrpc.dispatcher.Dispatcher>}.
    @param callerFor: As for L{PostedCalls}, and so is C{hostnames}.
    """

    contentTypes = ("text/xml", "application/xml")
    answerType = "text/xml; charset=utf-8"
    _log = Logger()

    def __init__(
        self,
        lookup: Lookup,
        callerFor: CallerFor,
        hostnames: Collection[str] | None = None,
    ) -> None:
        super().__init__(callerFor, hostnames)
        self._lookup = lookup

    async def answer(self, caller: object, body: bytes) -> bytes:
        try:
            return await self._call(caller, *_parse(body))
        except CallError as error:
            fault = Fault(error.number, str(_toXML(error.message)))
            return dumps(fault, methodresponse=True).encode("utf-8")

    async def _call(self, caller: object, name: str, args: list[object]) -> bytes:
        if not depthWithin(args, MAX_DEPTH):
            raise _bad("nested too deeply")
        _checkTypes(args)
        params: Params = args
        if len(args) == 1 and isinstance(args[0], dict):
            params = args[0]
        result = await invoke(self._lookup, caller, name, params)
        try:
            text = dumps((_toXML(result),), methodresponse=True, allow_none=True)
            return text.encode("utf-8")
        except (TypeError, ValueError, OverflowError, RecursionError):
            self._log.failure("The result of {method} has no XML form", method=name)
            raise CallError.internal() from None
