"""
Hosts and their ports as people write them, and as name servers, kernels,
certificates and C{Host} headers have them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, urlsplit

import idna

from tristunnel.errors import printable

__all__ = [
    "addressText",
    "basicLogin",
    "hostAndPort",
    "hostHeader",
    "hostName",
    "hostSaid",
    "parseHost",
    "parsePlace",
    "portNumber",
    "quoteURL",
    "webAddress",
    "webKind",
]


# More than DNS calls a host name: Docker, Netlify and hosts files have
# underscores, hyphens at the edges and in the third and fourth place.
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_ZONE = re.compile(r"[\w.~-]+")
_LONGEST = 253


def _asAddress(text: str) -> str | None:
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    # In URLs the percent sign itself is quoted (RFC 6874).
    address, mark, zone = bare.replace("%25", "%").partition("%")
    try:
        parsed = ip_address(address.removesuffix("."))
    except ValueError:
        return None
    if mark and (parsed.version == 4 or not _ZONE.fullmatch(zone)):
        return None
    return f"{parsed}{mark}{zone}"


def hostName(text: str) -> str:
    """
    Write a host's name or address as a name server or the kernel takes it.

    @param text: For example C{BÜCHER.example}, C{my_db}, C{192.0.2.1},
        C{[::1]} or C{fe80::1%eth0}.
    @return: An address with its zone and without brackets, or a name in lower
        case and in ASCII (A-labels). A last dot stays, since it keeps name
        servers from trying search domains.
    @raise ValueError: What is wrong, in words.
    """
    if (address := _asAddress(text)) is not None:
        return address
    name = text.lower()
    if not name.isascii() and len(name) <= _LONGEST:
        try:
            name = idna.uts46_remap(name, std3_rules=False)
        except UnicodeError:
            raise ValueError(f"{printable(text, 100)!r} is not a host") from None
        # Not idna.encode, which refuses names that people do have: with
        # underscores, emoji, or two hyphens.
        name = ".".join(
            label
            if label.isascii()
            else "xn--" + label.encode("punycode").decode("ascii")
            for label in name.split(".")
        )
    labels = name.removesuffix(".").split(".")
    if len(name) > _LONGEST + 1 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{printable(text, 100)!r} is not a host")
    return _asAddress(name) or name


def parseHost(text: str) -> IPv4Address | IPv6Address | str | None:
    """
    Read a host name or an IP address as certificates have it.

    @param text: What L{hostName} reads, or C{*.example.com}.
    @return: The address without its zone, or the name in lower case and in
        ASCII (A-labels) without the last dot; C{None} when it is neither.
    """
    bare = text.strip()
    wildcard = "*." if bare.startswith("*.") else ""
    try:
        name = hostName(bare.removeprefix(wildcard)).removesuffix(".")
    except ValueError:
        return None
    try:
        return ip_address(name.partition("%")[0])
    except ValueError:
        return wildcard + name if len(name) <= _LONGEST else None


def hostSaid(text: object) -> str:
    """
    Read what a peer calls a host, for a URI.

    @return: An address without its zone, or a name in ASCII; empty when
        C{text} is neither.
    """
    host = parseHost(text) if isinstance(text, str) else None
    return "" if host is None or str(host).startswith("*") else str(host)


def hostAndPort(host: str, port: int) -> str:
    """Write a host and a port as a URI does: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def hostHeader(host: str, port: int, usual: int) -> str:
    """
    Write what a C{Host} header says: without a zone, which means something on
    this machine only, without a last dot, and without the usual port, since
    proxies compare it with names.

    @param host: What L{hostName} returned.
    @param usual: The port of the URL's scheme.
    """
    bare = host.partition("%")[0].removesuffix(".")
    whole = hostAndPort(bare, port)
    return whole.removesuffix(f":{port}") if port == usual else whole


def quoteURL(text: str) -> str:
    """Write a URL's path or query in ASCII, and what is quoted in it as it is."""
    return quote(text, safe="/%:@!$&'()*+,;=?~[]|")


def portNumber(text: str) -> int:
    """
    @raise ValueError: What is wrong, in words.
    """
    if not text:
        raise ValueError("the port is missing")
    if len(text) > 5 or not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text[:100]!r} is not a port")
    if not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is not a port")
    return int(text)


def parsePlace(text: str) -> tuple[str, int]:
    """
    Read C{HOST:PORT}.

    @return: The host as L{hostName} writes it, and the port.
    @raise ValueError: What is wrong, in words.
    """
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, ""
    if not host:
        raise ValueError("the host is missing")
    return hostName(host), portNumber(port)


def addressOf(host: str) -> IPv4Address | IPv6Address | None:
    """
    Read an IP address, whatever its zone.

    @return: C{None} if it is none; of IPv4 on a dual-stack socket, that of IPv4.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def addressText(address: object) -> str:
    """
    Write an address as C{HOST:PORT}, and one of IPv4 on a dual-stack socket
    as what it is.
    """
    host, port = getattr(address, "host", None), getattr(address, "port", 0)
    if host is None:
        if onion := getattr(address, "onion_uri", None):
            # Of txtorcon's; the name of an onion service is not known before.
            return f"{onion}:{getattr(address, 'onion_port', '')}"
        name = getattr(address, "name", None)
        # Whoever connects may have given its socket any name.
        return printable(f"unix:{name.decode(errors='replace')}") if name else "unix"
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return printable(hostAndPort(host, port))


def basicLogin(pair: str) -> str:
    """
    Write what C{Authorization} says of a name and a password (RFC 7617).

    @param pair: Both, with a colon between.
    """
    return f"Basic {b64encode(pair.encode()).decode('ascii')}"


def webAddress(address: str, kind: str = "http") -> str:
    """
    What to open in a browser for a tunnel; empty where that makes no sense.

    @param address: The tunnel's.
    @param kind: What its service speaks: C{"http"}, C{"https"}, anything else.
    """
    try:
        url = urlsplit(address)
        place = url.netloc if url.hostname else ""
    except ValueError:
        return ""
    if url.scheme in ("http", "https"):
        return address
    if not place or url.scheme not in ("tcp", "tls") or not kind.startswith("http"):
        return ""
    return f"{'http' if (url.scheme, kind) == ('tcp', 'http') else 'https'}://{place}/"


_WEB_NAMES = frozenset(("http", "web", "www"))


def webKind(target: str, name: str) -> str:
    """
    What a service speaks, as far as its owner's words for it say.

    @param target: The service, for example C{http://localhost:3000}.
    @param name: The tunnel's name.
    @return: C{"http"}, or empty if they do not say.
    """
    # A client that is given https:// speaks TLS itself: visitors then do not.
    if target.lower().startswith(("http://", "https://")):
        return "http"
    return "http" if _WEB_NAMES & set(re.split(r"[-_.]", name.lower())) else ""
