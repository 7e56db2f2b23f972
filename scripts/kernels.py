#!/usr/bin/env python3
"""Builds or describes the native CPU kernels: scripts/kernels.py build|info|clear"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mlxlab.cli.kernels import main

if __name__ == "__main__":
    sys.exit(main())
