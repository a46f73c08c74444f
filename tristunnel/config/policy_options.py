"""The options about visitors that both commands have."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from tristunnel.config.numbers import checkNumbers, count, seconds
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.policy import VisitorPolicy, parseNetworks
from tristunnel.util.quantities import parseRate

__all__ = ["PolicyOptionsMixin", "policyOf"]


_limit = partial(count, most=1_000_000)
_time = partial(seconds, least=1.0, most=1e9, orZero=True)


class PolicyOptionsMixin:
    """For C{usage.Options}: what is asked of visitors."""

    optParameters: ClassVar[Any] = [
        _limit("max-visitors", 0, "Visitors of a tunnel at once; 0: any number."),
        _limit("visitors-per-address", 0, "The same, of one address."),
        _limit("visitor-rate", 0, "Visitors of one address per minute; 0: any."),
        ("rate", None, "", "A tunnel's bytes per second, each way: 10MB/s."),
        _time("idle-timeout", 0.0, "Seconds until a silent visitor goes."),
        _time("max-stream-age", 0.0, "Seconds until any visitor goes."),
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
    checkNumbers(PolicyOptionsMixin, options)
    rate = options["rate"]
    networks = []
    for name in ("allow", "deny"):
        try:
            networks.append(parseNetworks(options.get(name, ())))
        except TunnelError as error:
            raise badOption(f"--{name}: {error.message}") from None
    return VisitorPolicy(
        networks[0],
        networks[1],
        options["max-visitors"],
        options["visitors-per-address"],
        options["visitor-rate"],
        parseRate(rate) if rate else 0,
        options["idle-timeout"],
        options["max-stream-age"],
    )
