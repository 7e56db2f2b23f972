#!/usr/bin/env python3
"""Moves MLflow stores into the central one: scripts/migrate.py source=FILE|FOLDER|GLOB"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.migrate import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
