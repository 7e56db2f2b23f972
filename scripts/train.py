#!/usr/bin/env python3
"""Trains: `scripts/train.py model=bert data=titanic trainer=simple tracking=mlflow`; `--help` lists all keys."""

import os
import sys
from pathlib import Path

_SOURCE = str(Path(__file__).resolve().parents[1] / "src")
sys.path.insert(0, _SOURCE)
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [_SOURCE, os.environ.get("PYTHONPATH")])
)  # for the jobs of a sweep

try:
    from mlxlab.cli.train import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
