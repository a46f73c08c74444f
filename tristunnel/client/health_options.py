"""The options about health checks of services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tristunnel.config.help import Group
from tristunnel.config.numbers import count, seconds
from tristunnel.forwards.health import HealthPlan, HealthRules, planOf

__all__ = ["HEALTH", "HealthOptionsMixin", "healthOf"]

HEALTH = Group(
    "Whether services are well",
    "health=CHECK health-interval=SECONDS health-fall=NUMBER health-rise=NUMBER",
)
"""How C{--help} shows these options."""

_RULES = HealthRules()


class HealthOptionsMixin:
    """For C{usage.Options}: how services are checked."""

    optParameters: ClassVar[Any] = [
        (
            "health",
            None,
            "",
            "Let visitors in only while services are well: tcp, or http:/PATH.",
        ),
        seconds(
            "health-interval",
            _RULES.interval,
            "Seconds between two checks.",
            0.1,
            86400,
        ),
        count(
            "health-fall", _RULES.fall, "Failed checks until a service is not well.", 1
        ),
        count("health-rise", _RULES.rise, "Passed checks until it is well again.", 1),
    ]


def healthOf(options: Mapping[str, Any], own: str) -> HealthPlan | None:
    """
    Find out how a service is checked.

    @param options: The options for all of the client's services.
    @param own: What its forward says.
    @raise TunnelError: C{bad-option}.
    """
    rules = HealthRules(
        options["health-interval"], options["health-fall"], options["health-rise"]
    )
    return planOf(own or options["health"], rules)
