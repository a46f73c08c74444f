"""
Tests of tristunnel.
"""

import os

# Servers of tests are on this machine, where no proxy leads.
for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    for _each in (_name, _name.upper()):
        os.environ.pop(_each, None)
