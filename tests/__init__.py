"""
Tests of tristunnel.
"""

import os

from hypothesis import HealthCheck, settings

# Servers of tests are on this machine, where no proxy leads.
for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    for _each in (_name, _name.upper()):
        os.environ.pop(_each, None)

# How long inputs take to make is a matter of what else runs on the machine.
settings.register_profile(
    "tests",
    deadline=None,
    max_examples=500 if os.environ.get("TRISTUNNEL_LONG") else 50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")
