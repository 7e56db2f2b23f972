#!/usr/bin/env python3
"""Tracked runs: scripts/runs.py list | find FILTER | show RUN | compare RUN RUN | diff RUN RUN | doctor | sync"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.runs import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
