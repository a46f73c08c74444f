"""
The metrics of all processes of a server on one page, told apart by C{process}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

__all__ = ["JoinedMetrics", "written"]


def written(registry: CollectorRegistry) -> list[Any]:
    """Write a registry's content in a form for JSON, which L{JoinedMetrics} reads."""
    return [
        [
            family.name,
            family.documentation,
            family.type,
            [[each.name, dict(each.labels), each.value] for each in family.samples],
        ]
        for family in registry.collect()
    ]


class JoinedMetrics(Collector):
    """
    The metrics of several processes together.

    @param parts: The name of each, and what L{written} returned there.
    """

    def __init__(self, parts: Iterable[tuple[str, list[Any]]]) -> None:
        self._parts = list(parts)

    def collect(self) -> Iterator[Metric]:
        """Join the samples of one metric, each labelled with its process."""
        families: dict[str, Metric] = {}
        for process, part in self._parts:
            for name, text, kind, samples in part:
                family = families.setdefault(name, Metric(name, text, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, {**labels, "process": process}, value)
        return iter(families.values())
