"""
The options about visitors that both commands have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tristunnel.errors import TunnelError
from tristunnel.model.policy import VisitorPolicy, parseNetworks
from tristunnel.util.quantities import parseRate

__all__ = ["PolicyOptionsMixin", "policyOf"]


class PolicyOptionsMixin:
    """
    For C{usage.Options}: what is asked of visitors.
    """

    optParameters: ClassVar[Any] = [
        ("max-visitors", None, 0, "Visitors of a tunnel at once; 0: any number.", int),
        ("visitors-per-address", None, 0, "The same, of one address.", int),
        ("visitor-rate", None, 0, "Visitors of one address per minute; 0: any.", int),
        ("rate", None, "", "A tunnel's bytes per second, each way: 10MB/s."),
        ("idle-timeout", None, 0.0, "Seconds until a silent visitor goes.", float),
        ("max-stream-age", None, 0.0, "Seconds until any visitor goes.", float),
    ]

    def opt_allow(self, network: str) -> None:
        """
        A network, or an address, that visitors may come from; others may not
        then. May be given several times.
        """
        _add(self, "allow", network)

    def opt_deny(self, network: str) -> None:
        """
        A network, or an address, that visitors may not come from. May be given
        several times.
        """
        _add(self, "deny", network)


def _add(options: Any, name: str, network: str) -> None:
    options[name] = [*options.get(name, []), network]


def policyOf(options: Mapping[str, Any]) -> VisitorPolicy:
    """
    Check the options.

    @raise TunnelError: C{bad-option}.
    """
    for name in ("max-visitors", "visitors-per-address", "visitor-rate"):
        if not 0 <= options[name] <= 1_000_000:
            raise TunnelError("bad-option", f"--{name} takes a number, from 0 up")
    for name in ("idle-timeout", "max-stream-age"):
        if not (options[name] == 0 or 1 <= options[name] <= 1e9):
            raise TunnelError("bad-option", f"--{name} takes seconds, from 1 up, or 0")
    rate = options["rate"]
    networks = []
    for name in ("allow", "deny"):
        try:
            networks.append(parseNetworks(options.get(name, ())))
        except TunnelError as error:
            raise TunnelError("bad-option", f"--{name}: {error.message}") from None
    return VisitorPolicy(
        networks[0],
        networks[1],
        options["visitors-per-address"],
        options["max-visitors"],
        options["visitor-rate"],
        parseRate(rate) if rate else 0,
        options["idle-timeout"],
        options["max-stream-age"],
    )
