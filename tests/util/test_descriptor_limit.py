"""Tests for L{tristunnel.util.descriptor_limit}."""

from __future__ import annotations

from resource import RLIM_INFINITY

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util import descriptor_limit
from tristunnel.util.descriptor_limit import descriptorLimit, raiseDescriptorLimit


class LimitTests(SynchronousTestCase):
    """How many descriptors there may be."""

    def test_raise(self) -> None:
        """The soft limit is raised as far as that makes sense, and never lowered."""
        for soft, hard, wanted in (
            (1024, 4096, 4096),
            (1024, 1 << 20, 65536),
            (1024, RLIM_INFINITY, 65536),
            (4096, 4096, None),
            (1 << 20, 1 << 20, None),
            (RLIM_INFINITY, RLIM_INFINITY, None),
        ):
            limits, now = descriptor_limit.limits, [(soft, hard)]
            self.patch(limits, "getrlimit", lambda which, now=now: now[0])
            self.patch(
                limits,
                "setrlimit",
                lambda which, limits, now=now: now.__setitem__(0, limits),
            )
            raiseDescriptorLimit()
            self.assertEqual(now, [(wanted or soft, hard)])
            endless = wanted is None and soft == RLIM_INFINITY
            self.assertEqual(descriptorLimit(), 0 if endless else wanted or soft)

    def test_none(self) -> None:
        """Where nobody counts them there is no limit."""
        self.patch(descriptor_limit, "limits", None)
        raiseDescriptorLimit()
        self.assertEqual(descriptorLimit(), 0)
