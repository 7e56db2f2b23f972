#!/usr/bin/env python3
"""Translates a command line of an older program: `scripts/translate.py 'python train.py --batch_size=8'`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mlxlab.cli.translate import main

if __name__ == "__main__":
    sys.exit(main())
