#!/usr/bin/env python3
"""Translates a command line of an older program: `scripts/translate.py 'python train.py --batch_size=8'`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.translate import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
