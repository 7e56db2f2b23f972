#!/usr/bin/env python3
"""Compares methods: scripts/compare.py baseline=NAME NAME=FOLDER NAME=FOLDER ..."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mlxlab.cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
