"""
A directory for UNIX sockets, whose paths have about a hundred bytes at most:
trial's own directories may be deeper than that.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

__all__ = ["shortDirectory"]


def shortDirectory(case: SynchronousTestCase) -> Path:
    """
    Make a directory that is gone after the test.

    @param case: The test.
    """
    directory = tempfile.mkdtemp(prefix="tt")
    case.addCleanup(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)
