"""Bodies, laid out for people."""

from __future__ import annotations

import re
import zlib
from typing import Any
from urllib.parse import unquote_plus

from tristunnel.inspect.exchange import Part
from tristunnel.inspect.masks import maskedForm

__all__ = ["bodyOf", "hexOf", "payloadOf", "prettyJSON", "prettyXML"]

MOST_INFLATED = 256 * 1024
"""Bytes to which a body is unpacked."""

_HEX_SHOWN = 4096
_DEEPEST = 32
"""Levels that are indented: a body may have as many as it has bytes."""

_TYPE = re.compile(r"\s*([^\s;]*)[^;]*(.*)", re.DOTALL)
_CHARSET = re.compile(
    r";\s*charset\s*=\s*\"?(us-ascii|utf-?(?:8|16)(?:le|be)?|iso-8859-\d{1,2}|latin1"
    r"|windows-125\d|koi8-[ru]|gbk|gb18030|gb2312|big5|euc-(?:jp|kr)|shift_jis)\b",
    re.IGNORECASE,
)
"""Of Python's codecs some are no charsets, and some take ages."""

_TEXTS = re.compile(
    r"text/.*|application/(.*\+)?(json|xml|javascript|ecmascript|x-ndjson|graphql"
    r"|x-www-form-urlencoded|yaml|toml|sql|xhtml)|image/svg\+xml|application/x-sh"
)
_JSON = re.compile(r"application/(.*\+)?json|text/json")
_XML = re.compile(
    r"(application|text)/(.*\+)?xml|image/svg\+xml|application/xhtml\+xml"
)
_FORM = "application/x-www-form-urlencoded"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_MARKUP = re.compile(r"<[^>]*>?|[^<]+")
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _indent(depth: int) -> str:
    return "\n" + "  " * min(depth, _DEEPEST)


def prettyJSON(text: str) -> str:
    """
    Lay out JSON, or the beginning of some. Numbers and strings stay as they are, so
    that what is shown is what was sent.
    """
    made: list[str] = []
    depth = 0
    tokens: list[str] = _TOKEN.findall(text)
    for index, token in enumerate(tokens):
        following = tokens[index + 1 : index + 2]
        if token in ("{", "["):
            depth += 1
            made.append(token)
            if following not in (["}"], ["]"]):
                made.append(_indent(depth))
        elif token in ("}", "]"):
            depth = max(0, depth - 1)
            if tokens[index - 1 : index] not in (["{"], ["["]):
                made.append(_indent(depth))
            made.append(token)
        elif token == ",":
            made.append("," + _indent(depth))
        else:
            made.append(": " if token == ":" else token)
    return "".join(made)


def prettyXML(text: str) -> str:
    """Lay out XML, or the beginning of some, without understanding it."""
    lines: list[str] = []
    depth = 0
    isOpen = False
    for token in _MARKUP.findall(text):
        if not token.strip():
            continue
        isClosing = token.startswith("</")
        if isClosing:
            depth = max(0, depth - 1)
        if not token.startswith("<") or (isClosing and isOpen):
            # The text of an element stays beside its tags.
            lines.append(token.strip())
        else:
            lines.append(_indent(depth) + token)
        begins = token.startswith("<") and token[1:2] not in ("/", "!", "?")
        isOpen = isClosing is False and (begins or (isOpen and token[0] != "<"))
        if begins and not token.endswith("/>"):
            depth += 1
        elif begins:
            isOpen = False
    return "".join(lines).lstrip("\n")


def hexOf(data: bytes) -> str:
    """Show bytes in lines of sixteen, as C{hexdump -C} does."""
    lines = []
    for start in range(0, min(len(data), _HEX_SHOWN), 16):
        row = data[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):<47}  {shown}")
    return "\n".join(lines)


def _plainOf(part: Part) -> tuple[bytes, str]:
    """
    Unpack the beginning of a body.

    @return: It, and a note about that.
    """
    kept = bytes(part.kept)
    encoding = part.head.get(b"content-encoding").strip().lower()
    if encoding in (b"", b"identity"):
        return kept, ""
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        return kept, f"compressed with {encoding.decode('latin-1')[:20]}"
    for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        try:
            plain = zlib.decompressobj(window).decompress(kept, MOST_INFLATED)
        except zlib.error:
            continue
        note = "" if len(plain) < MOST_INFLATED else "; not all of it is shown"
        return plain, f"unpacked from {encoding.decode('latin-1')}{note}"
    return kept, "damaged: it cannot be unpacked"


def _decoded(data: bytes, said: str, isCut: bool) -> str | None:
    """Read text; C{None} if it is none."""
    found = _CHARSET.search(said)
    charset = found[1] if found else "utf-8"
    try:
        text = data.decode(charset)
    except LookupError:
        return None
    except UnicodeDecodeError as error:
        if not (isCut and error.start > len(data) - 4):
            return None
        # The last character is cut off.
        text = data[: error.start].decode(charset, "ignore")
    return None if _UNSEEN.search(text) else text


def bodyOf(part: Part, reveal: bool) -> dict[str, Any]:
    """
    Show a body.

    @param reveal: Whether secrets of a form are shown.
    @return: C{kind} (C{none}, C{json}, C{xml}, C{form}, C{text} or C{hex}), C{text},
        C{pretty} (the same, laid out), C{size}, C{kept} and a C{note}.
    """
    size, kept = part.size, len(part.kept)
    shown: dict[str, Any] = {
        "kind": "none",
        "text": "",
        "pretty": "",
        "size": size,
        "kept": kept,
        "note": "",
    }
    if not kept:
        return shown
    said = part.head.get(b"content-type").decode("latin-1")
    found = _TYPE.match(said)
    kind = found[1].lower() if found else ""
    plain, shown["note"] = _plainOf(part)
    isCut = kept < size or len(plain) == MOST_INFLATED
    text = None
    if not kind or _TEXTS.fullmatch(kind) or kind == _FORM:
        text = _decoded(plain, said, isCut)
    if text is None:
        shown.update(kind="hex", text=hexOf(plain))
        return shown
    shown.update(kind="text", text=text)
    if kind == _FORM:
        text = text if reveal else maskedForm(text)
        shown.update(kind="form", text=text, pretty=_formLines(text))
    elif _JSON.fullmatch(kind):
        shown.update(kind="json", pretty=prettyJSON(text))
    elif _XML.fullmatch(kind):
        shown.update(kind="xml", pretty=prettyXML(text))
    return shown


def _formLines(text: str) -> str:
    lines = []
    for pair in text.split("&"):
        name, equals, value = (unquote_plus(each) for each in pair.partition("="))
        lines.append(f"{name} = {value}" if equals else name)
    return "\n".join(lines)


def payloadOf(data: bytes, isText: bool) -> tuple[str, str]:
    """
    Show the payload of a WebSocket's message.

    @return: C{text}, C{json} or C{hex}, and the text.
    """
    text = _decoded(data, "", True) if isText else None
    if text is None:
        return "hex", hexOf(data)
    if text[:1] in ("{", "["):
        return "json", prettyJSON(text)
    return "text", text
