#!/usr/bin/env python3
"""Losses by example: scripts/example_losses.py top SOURCE ... | merge SOURCE ... out=losses.parquet"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.example_losses import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
