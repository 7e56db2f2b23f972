#!/usr/bin/env python3
"""Evaluates a trained model: scripts/evaluate.py run=outputs/... data.source=my.txt"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.evaluate import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
