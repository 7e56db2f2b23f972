#!/usr/bin/env python3
"""Builds or describes the native CPU kernels: scripts/kernels.py build|info|clear"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

try:
    from mlxlab.cli.kernels import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
