"""The options about visitors that both commands have."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import checkNumbers, count, readOption, seconds
from tristunnel.model.policy import VisitorPolicy, parseCountries, parseNetworks
from tristunnel.util.quantities import parseRate

__all__ = ["VISITORS", "PolicyOptionsMixin", "policyOf"]

VISITORS = OptionGroup(
    "Which visitors may come, and how many",
    "allow=NETWORK deny=NETWORK countries=CODES max-visitors=NUMBER"
    " visitors-per-address=NUMBER visitor-rate=NUMBER rate=RATE idle-timeout=SECONDS"
    " max-stream-age=SECONDS",
)
"""How C{--help} shows these options."""


_limit = partial(count, most=1_000_000)
_time = partial(seconds, least=1.0, most=1e9, orZero=True)


class PolicyOptionsMixin:
    """For C{usage.Options}: what is required of visitors."""

    optParameters: ClassVar[Any] = [
        _limit(
            "max-visitors",
            0,
            "Maximum simultaneous visitors of a tunnel (0 = unlimited).",
        ),
        _limit(
            "visitors-per-address",
            0,
            "Maximum simultaneous visitors of a tunnel from one address.",
        ),
        _limit("visitor-rate", 0, "Maximum new visitors per minute from one address."),
        ("rate", None, "", "Maximum bandwidth of a tunnel, each way, such as 10MB/s."),
        _time(
            "idle-timeout",
            0.0,
            "Disconnect a visitor after so many seconds without traffic.",
        ),
        _time(
            "max-stream-age",
            0.0,
            "Disconnect a visitor after so many seconds in any case.",
        ),
    ]

    def opt_allow(self, network: str) -> None:
        """
        Only accept visitors from this network or address. Can be repeated.
        """
        _add(self, "allow", network)

    def opt_deny(self, network: str) -> None:
        """
        Reject visitors from this network or address, even if --allow includes
        it. Can be repeated.
        """
        _add(self, "deny", network)

    def opt_countries(self, countries: str) -> None:
        """
        Only accept visitors from these countries, such as DE,AT. Needs
        --country-database at the server. Can be repeated.
        """
        _add(self, "countries", countries)


def _add(options: Any, name: str, network: str) -> None:
    options[name] = [*options.get(name, []), network]


def policyOf(options: Mapping[str, Any]) -> VisitorPolicy:
    """
    Check the options.

    @raise TunnelError: C{bad-option}.
    """
    checkNumbers(PolicyOptionsMixin, options)
    rate = options["rate"]
    networks = [
        readOption(name, parseNetworks, options.get(name, ()))
        for name in ("allow", "deny")
    ]
    return VisitorPolicy(
        networks[0],
        networks[1],
        options["max-visitors"],
        options["visitors-per-address"],
        options["visitor-rate"],
        readOption("rate", parseRate, rate) if rate else 0,
        options["idle-timeout"],
        options["max-stream-age"],
        readOption("countries", parseCountries, options.get("countries", ())),
    )
