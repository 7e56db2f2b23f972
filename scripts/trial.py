#!/usr/bin/env python3
"""Says whether a change is a gain: `scripts/trial.py baseline=outputs/mine trainer.learning_rate=3e-4`."""

import os
import sys
from pathlib import Path

_SOURCE = str(Path(__file__).resolve().parents[1] / "src")
sys.path.insert(0, _SOURCE)
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [_SOURCE, os.environ.get("PYTHONPATH")])
)  # for its jobs

try:
    from mlxlab.cli.trial import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
