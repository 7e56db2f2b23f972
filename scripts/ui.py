#!/usr/bin/env python3
"""Serves the user interface of MLflow for the central store: scripts/ui.py [RUN] [port=5000]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.ui import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
