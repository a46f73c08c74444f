"""C{python -m tristunnel}: the same as C{tristunnel}."""

from __future__ import annotations

import sys

from tristunnel.cli.main import main

sys.exit(main())
