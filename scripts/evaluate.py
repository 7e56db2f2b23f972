#!/usr/bin/env python3
"""Evaluates a trained model: scripts/evaluate.py run=outputs/... data.source=my.txt"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mlxlab.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
