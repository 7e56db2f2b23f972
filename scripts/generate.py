#!/usr/bin/env python3
"""Continues texts: scripts/generate.py run=outputs/... prompt="Once upon a time" """

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mlxlab.cli.generate import main

if __name__ == "__main__":
    sys.exit(main())
