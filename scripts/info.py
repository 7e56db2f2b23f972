#!/usr/bin/env python3
"""Shows the sizes of models: scripts/info.py presets"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from mlxlab.cli.info import main

if __name__ == "__main__":
    sys.exit(main())
