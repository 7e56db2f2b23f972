#!/usr/bin/env python3
"""Predicts labels: scripts/predict.py run=outputs/... input=rows.csv output=predictions.csv"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.predict import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
