#!/usr/bin/env python3
"""Continues texts: scripts/generate.py run=outputs/... prompt="Once upon a time" """

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.generate import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
