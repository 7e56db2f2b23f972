#!/usr/bin/env python3
"""Measurements: scripts/benchmark.py suite=saving"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mlxlab.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
