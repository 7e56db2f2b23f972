#!/usr/bin/env python3
"""Cross-validates an experiment: `scripts/crossvalidate.py experiment=titanic folds=5 seeds=3`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.crossvalidate import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
