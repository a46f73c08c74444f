"""
Runs C{twistd} and writes down, every two seconds, how many timers and objects
there are in its process: C{python -m benchmarks.faults.watched FILE OPTIONS}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from pathlib import Path

INTERVAL = 2.0
"""Seconds between two looks."""


def _watch(path: Path) -> None:
    """
    Look for ever. This is a thread, so that the reactor under watch has no
    timer more than usual.
    """
    fresh = path.with_suffix(".new")
    while True:
        time.sleep(INTERVAL)
        # Whoever imports it here would have installed it.
        reactor = getattr(sys.modules.get("twisted.internet"), "reactor", None)
        if reactor is None:
            continue
        gc.collect()
        seen = {
            "timers": len(reactor.getDelayedCalls()),
            "objects": len(gc.get_objects()) + gc.get_freeze_count(),
        }
        fresh.write_text(json.dumps(seen))
        os.replace(fresh, path)


def main() -> None:
    """Watch and run."""
    path = Path(sys.argv.pop(1))
    threading.Thread(target=_watch, args=(path,), daemon=True).start()
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
